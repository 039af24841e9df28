//! Values to pixels: linear and logarithmic axes with round ticks, and how numbers are written.

/// One axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    /// Pixels of both ends.
    ends: [f64; 2],
    /// Values with a line and a label.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// From 0 to a round number that holds `max`; some five ticks.
    pub fn linear(max: f64, ends: [f64; 2]) -> Self {
        let max = if max > 0.0 && max.is_finite() { max } else { 1.0 };
        let step = round_step(max / 4.0);
        let steps = (max / step).ceil().max(1.0) as usize;
        let ticks: Vec<f64> = (0..=steps).map(|n| n as f64 * step).collect();
        Self { low: 0.0, high: steps as f64 * step, is_log: false, ends, ticks }
    }

    /// From a 1, 2 or 5 below the smallest positive value to one above the largest.
    pub fn log(values: impl IntoIterator<Item = f64>, ends: [f64; 2]) -> Self {
        let positive = values.into_iter().filter(|value| *value > 0.0 && value.is_finite());
        let range = positive.fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let (min, max) = range.unwrap_or((1.0, 1.0));
        let steps: Vec<f64> =
            (-12..=15).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power))).collect();
        let low = steps.iter().rev().copied().find(|step| *step <= min).unwrap_or(min);
        let high = steps.iter().copied().find(|step| *step >= max && *step > low).unwrap_or(max);
        // Over many decades only every power of ten is written.
        let is_wide = high / low > 200.0;
        let is_tick = |step: &f64| !is_wide || step.log10().fract().abs() < 1e-9;
        let within = |step: &f64| (low..=high).contains(step);
        Self { low, high, is_log: true, ends, ticks: steps.into_iter().filter(within).filter(is_tick).collect() }
    }

    /// The pixel of a value; what lies beyond an end is shown at it.
    pub fn at(&self, value: f64) -> f64 {
        let value = if value.is_nan() { self.low } else { value.clamp(self.low, self.high) };
        let share = match self.is_log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.ends[0] + share * (self.ends[1] - self.ends[0])
    }
}

/// The 1, 2 or 5 times a power of ten that is nearest above.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= least * 0.999).unwrap_or(least)
}

/// A number with its thousands set apart, as many decimals as it needs to be told from its neighbours.
pub fn number(value: f64) -> String {
    let decimals = if value.abs() >= 100.0 || value.fract() == 0.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    fraction.map_or(out.clone(), |fraction| format!("{out}.{fraction}"))
}

/// Microseconds in the unit that suits them.
pub fn time(us: f64) -> String {
    match us {
        1e6.. => format!("{} s", number(us / 1e6)),
        1e3.. => format!("{} ms", number(us / 1e3)),
        _ => format!("{} µs", number(us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_holds_the_largest() {
        let axis = Axis::linear(869.0, [200.0, 0.0]);
        assert_eq!(axis.ticks, [0.0, 500.0, 1000.0]);
        assert_eq!((axis.at(0.0), axis.at(500.0), axis.at(1000.0), axis.at(9999.0)), (200.0, 100.0, 0.0, 0.0));
        assert_eq!(Axis::linear(400.0, [0.0, 1.0]).ticks, [0.0, 100.0, 200.0, 300.0, 400.0]);
        for nothing in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Axis::linear(nothing, [0.0, 1.0]).at(0.5), 0.5);
        }
    }

    #[test]
    fn a_log_axis_gives_equal_room_to_equal_ratios() {
        let axis = Axis::log([30.0, 90.0, 400.0], [0.0, 100.0]);
        assert_eq!(axis.ticks, [20.0, 50.0, 100.0, 200.0, 500.0]);
        let room = |a: f64, b: f64| axis.at(b) - axis.at(a);
        assert!((room(20.0, 40.0) - room(200.0, 400.0)).abs() < 1e-9);
        assert_eq!((axis.at(0.0), axis.at(f64::NAN), axis.at(1e9)), (0.0, 0.0, 100.0));
        assert_eq!(Axis::log([3.0, 40_000.0], [0.0, 1.0]).ticks, [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(Axis::log([7.0], [0.0, 1.0]).ticks, [5.0, 10.0]);
        assert!(Axis::log([], [0.0, 1.0]).at(1.0).is_finite());
        assert!(Axis::log([100.0], [0.0, 1.0]).at(100.0).is_finite(), "one round value is no empty range");
    }

    #[test]
    fn numbers_are_written_for_people() {
        let cases = [
            (0.0, "0"),
            (3.456, "3.46"),
            (34.56, "34.6"),
            (345.6, "346"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!((time(50.0), time(1500.0), time(2e6)), ("50 µs".into(), "1.50 ms".into(), "2 s".into()));
    }
}
