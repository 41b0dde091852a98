//! The points that the codes of a format stand for, before scale and offset: sixteen numbers at a time.

/// Numbers side by side.
pub(crate) type Lanes = [f32; LANES];

/// How many. Sub-blocks are multiples of it.
pub(crate) const LANES: usize = 16;

/// 1.5 * 2^23: adding it rounds a float of magnitude below 2^22 to an integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// The points of a format. Methods are `#[inline(always)]` so that every instruction set gets its own copy.
pub(crate) trait Points: Copy {
    /// The lowest and the highest point.
    fn range(self) -> (f32, f32);

    /// The points nearest to values; those at the ends for values beyond.
    fn nearest(self, values: &Lanes) -> Lanes;

    /// The codes, as stored, of what [`Points::nearest`] gives.
    fn codes(self, values: &Lanes) -> [u8; LANES];
}

/// All integers from `least` to `most`; the code of a point is `point + bias`, as a byte.
#[derive(Clone, Copy)]
pub(crate) struct Even {
    pub(crate) least: f32,
    pub(crate) most: f32,
    pub(crate) bias: i16,
}

impl Points for Even {
    #[inline(always)]
    fn range(self) -> (f32, f32) {
        (self.least, self.most)
    }

    #[inline(always)]
    fn nearest(self, values: &Lanes) -> Lanes {
        let mut points = [0.0; LANES];
        for (point, value) in points.iter_mut().zip(values) {
            *point = (clamp(*value, self.least, self.most) + ROUND) - ROUND;
        }
        points
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "points and codes have at most nine bits with their signs")]
    fn codes(self, values: &Lanes) -> [u8; LANES] {
        let mut codes = [0; LANES];
        for (code, point) in codes.iter_mut().zip(self.nearest(values)) {
            *code = (point as i16 + self.bias).to_le_bytes()[0];
        }
        codes
    }
}

/// The shares 0/255 to 255/255.
#[derive(Clone, Copy)]
pub(crate) struct Shares;

impl Points for Shares {
    #[inline(always)]
    fn range(self) -> (f32, f32) {
        (0.0, 1.0)
    }

    #[inline(always)]
    fn nearest(self, values: &Lanes) -> Lanes {
        // The division is the decoder's: multiplying by 1/255 would round otherwise.
        let mut shares = share_steps(values);
        for share in &mut shares {
            *share /= 255.0;
        }
        shares
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an integer from 0 to 255")]
    fn codes(self, values: &Lanes) -> [u8; LANES] {
        let mut codes = [0; LANES];
        for (code, steps) in codes.iter_mut().zip(share_steps(values)) {
            *code = steps as u8;
        }
        codes
    }
}

#[inline(always)]
fn share_steps(values: &Lanes) -> Lanes {
    let mut steps = [0.0; LANES];
    for (steps, value) in steps.iter_mut().zip(values) {
        *steps = (clamp(*value, 0.0, 1.0) * 255.0 + ROUND) - ROUND;
    }
    steps
}

/// A table of sixteen rising points.
#[derive(Clone, Copy)]
pub(crate) struct Table(pub(crate) &'static [f32; 16]);

impl Table {
    /// The upper one of two neighbouring points, and from where on it is the nearer.
    #[inline(always)]
    fn steps(self) -> impl Iterator<Item = (f32, f32)> {
        self.0.iter().zip(&self.0[1..]).map(|(low, high)| (*high, (low + high) * 0.5))
    }
}

impl Points for Table {
    #[inline(always)]
    fn range(self) -> (f32, f32) {
        (self.0[0], self.0[15])
    }

    #[inline(always)]
    fn nearest(self, values: &Lanes) -> Lanes {
        let mut points = [self.0[0]; LANES];
        for (high, middle) in self.steps() {
            for (point, value) in points.iter_mut().zip(values) {
                *point = if *value >= middle { high } else { *point };
            }
        }
        points
    }

    #[inline(always)]
    fn codes(self, values: &Lanes) -> [u8; LANES] {
        let mut codes = [0; LANES];
        for (_, middle) in self.steps() {
            for (code, value) in codes.iter_mut().zip(values) {
                *code += u8::from(*value >= middle);
            }
        }
        codes
    }
}

/// In a form that vectorises; NaN becomes `least`.
#[inline(always)]
fn clamp(value: f32, least: f32, most: f32) -> f32 {
    let value = if value > least { value } else { least };
    if value < most { value } else { most }
}
