//! Fields that are not whole bytes: a reader that cannot run over, and a writer that notices when it is full.

/// Reads from the highest bit of the first byte on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit != 0)
    }

    /// An unsigned number of at most 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len() * 8)?;
        Some(())
    }

    /// ue(v) of H.264 (ITU-T H.264 §9.1), at most 32 bits.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros == 32 {
                return None;
            }
        }
        Some(((1u64 << zeros) - 1) as u32 + self.bits(zeros)?)
    }

    /// se(v) of H.264 (§9.1.1).
    pub(crate) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let value = if code & 1 != 0 { (code + 1) / 2 } else { -(code / 2) };
        i32::try_from(value).ok()
    }

    /// ns(n) of AV1 (§4.10.7): a number below `bound`, in one bit less where that is enough.
    pub(crate) fn ns(&mut self, bound: u32) -> Option<u32> {
        let width = 32 - bound.leading_zeros();
        let shorts = (1u64 << width) - u64::from(bound);
        let value = self.bits(width.checked_sub(1)?)?;
        if u64::from(value) < shorts {
            return Some(value);
        }
        Some(((u64::from(value) << 1) + u64::from(self.bit()?) - shorts) as u32)
    }
}

/// Writes from the highest bit of the first byte on; `None` once something does not fit.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// The lowest `count` bits of `value`.
    pub(crate) fn bits(&mut self, value: u32, count: u32) -> Option<()> {
        for bit in (0..count).rev() {
            let byte = self.out.get_mut(self.at / 8)?;
            let mask = 0x80 >> (self.at % 8);
            *byte = if value >> bit & 1 != 0 { *byte | mask } else { *byte & !mask };
            self.at += 1;
        }
        Some(())
    }

    /// So many bits of a reader.
    pub(crate) fn copy(&mut self, from: &mut BitReader<'_>, mut count: usize) -> Option<()> {
        while count > 0 {
            let step = count.min(32) as u32;
            self.bits(from.bits(step)?, step)?;
            count -= step as usize;
        }
        Some(())
    }

    /// Clears what is left of the last byte. Bytes written.
    pub(crate) fn finish(mut self) -> Option<usize> {
        self.bits(0, ((8 - self.at % 8) % 8) as u32)?;
        Some(self.at / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_golomb_codes_are_read() {
        // ITU-T H.264 §9.1, table 9-2: 1, 010, 011, 00100, 00101.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut reader = BitReader::new(&bytes);
        assert_eq!((0..5).map(|_| reader.ue()).collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(Some));
        let mut reader = BitReader::new(&bytes);
        assert_eq!((0..5).map(|_| reader.se()).collect::<Vec<_>>(), [0, 1, -1, 2, -2].map(Some));
        assert_eq!(BitReader::new(&[0; 8]).ue(), None);
        // 24 zeros, a one, 24 ones.
        assert_eq!(BitReader::new(&[0, 0, 0, 0xff, 0xff, 0xff, 0xff]).ue(), Some((1 << 25) - 2));
    }

    #[test]
    fn numbers_below_a_bound_take_one_bit_less_where_they_can() {
        // AV1 §4.10.7 with n = 5: 00, 01, 10, 110, 111.
        let mut reader = BitReader::new(&[0b0001_1011, 0b0111_0000]);
        assert_eq!((0..5).map(|_| reader.ns(5)).collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(Some));
        assert_eq!(BitReader::new(&[]).ns(1), Some(0), "one value takes no bit");
        assert_eq!(BitReader::new(&[0xff]).ns(0), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in prop::collection::vec((any::<u32>(), 0u32..=32), 0..40)) {
            let mut bytes = [0xaa; 200];
            let mut writer = BitWriter::new(&mut bytes);
            for (value, count) in &fields {
                prop_assert!(writer.bits(*value, *count).is_some());
            }
            let bits: usize = fields.iter().map(|(_, count)| *count as usize).sum();
            let len = writer.finish().unwrap();
            prop_assert_eq!(len, bits.div_ceil(8));
            let mut copied = [0x55; 200];
            let mut copy = BitWriter::new(&mut copied);
            prop_assert!(copy.copy(&mut BitReader::new(&bytes), bits).is_some());
            prop_assert_eq!(copy.finish(), Some(len));
            prop_assert_eq!(&copied[..len], &bytes[..len]);
            let mut reader = BitReader::new(&bytes[..len]);
            for (value, count) in &fields {
                let mask = ((1u64 << count) - 1) as u32;
                prop_assert_eq!(reader.bits(*count), Some(value & mask));
            }
            prop_assert_eq!(reader.at(), bits);
            prop_assert!(reader.skip(len * 8 - bits).is_some());
            prop_assert_eq!(reader.bit(), None);
        }
    }
}
