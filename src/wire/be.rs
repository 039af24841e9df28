//! Big-endian fields: reads that cannot run over, and a writer that notices when it is full.

/// The 16-bit field at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 24-bit field at `at`.
pub(crate) fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    let [high, mid, low] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes([0, high, mid, low]))
}

/// The 32-bit field at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 64-bit field at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Appends fields to a slice; `None` once something does not fit.
pub(crate) struct Put<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Put<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> Option<()> {
        self.out.get_mut(self.len..)?.get_mut(..value.len())?.copy_from_slice(value);
        self.len += value.len();
        Some(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Option<()> {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Option<()> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u24(&mut self, value: u32) -> Option<()> {
        let [_, high, mid, low] = value.to_be_bytes();
        self.bytes(&[high, mid, low])
    }

    pub(crate) fn u32(&mut self, value: u32) -> Option<()> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> Option<()> {
        self.bytes(&value.to_be_bytes())
    }

    /// Overwrites bytes that were already put; what was not put stays untouched.
    pub(crate) fn patch(&mut self, at: usize, value: &[u8]) -> Option<()> {
        self.out.get_mut(..self.len)?.get_mut(at..)?.get_mut(..value.len())?.copy_from_slice(value);
        Some(())
    }

    /// Bytes put so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// A seeded source of hostile bytes for the smoke tests of the parsers.
#[cfg(test)]
pub(crate) mod hostile {
    /// xorshift64*: reproducible, no dependency, good enough to flip bytes.
    pub(crate) struct Mutator(u64);

    impl Mutator {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed | 1)
        }

        pub(crate) fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
        }

        /// One of the seeds with bytes flipped, cut or grown; now and then pure noise.
        pub(crate) fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
            if self.below(16) == 0 {
                return (0..self.below(96)).map(|_| self.below(256) as u8).collect();
            }
            let mut bytes = seeds[self.below(seeds.len())].clone();
            for _ in 0..self.below(6) {
                match self.below(4) {
                    0 => bytes.truncate(self.below(bytes.len() + 1)),
                    1 => bytes.push(self.below(256) as u8),
                    _ => {
                        let at = self.below(bytes.len());
                        if let Some(byte) = bytes.get_mut(at) {
                            let edge = [0, 1, 0x7f, 0x80, 0xff][self.below(5)];
                            *byte = if self.below(2) == 0 { edge } else { self.below(256) as u8 };
                        }
                    }
                }
            }
            bytes
        }
    }
}
