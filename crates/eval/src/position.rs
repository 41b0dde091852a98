//! What is kept about one position while the vocabulary streams by.

/// Logarithm of a sum of exponentials, one term at a time, kept relative to the largest exponent so far.
#[derive(Clone, Copy, Debug)]
struct LogSum {
    max: f64,
    sum: f64,
}

impl LogSum {
    const EMPTY: Self = Self { max: f64::NEG_INFINITY, sum: 0.0 };

    /// Adds a term. Returns by how much sums relative to the old maximum must be scaled, and the term relative to the
    /// new maximum.
    fn add(&mut self, value: f64) -> (f64, f64) {
        if value > self.max {
            let scale = libm::exp(self.max - value);
            self.sum = self.sum * scale + 1.0;
            self.max = value;
            return (scale, 1.0);
        }
        let term = libm::exp(value - self.max);
        self.sum += term;
        (1.0, term)
    }

    fn value(self) -> f64 {
        self.max + libm::log(self.sum)
    }
}

/// The two largest logits so far.
#[derive(Clone, Copy, Debug)]
struct Best {
    token: usize,
    value: f32,
    second: f32,
}

impl Best {
    const EMPTY: Self = Self { token: 0, value: f32::NEG_INFINITY, second: f32::NEG_INFINITY };

    fn add(&mut self, token: usize, value: f32) {
        if value > self.value {
            *self = Self { token, value, second: self.value };
        } else {
            self.second = self.second.max(value);
        }
    }
}

/// Running sums over the vocabulary at one position. Terms are added one by one in the order of token ids, so that the
/// result does not depend on how the vocabulary is divided into ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The token that follows in the sequence.
    next: Option<usize>,
    reference: LogSum,
    candidate: LogSum,
    /// Sum of exp(reference - maximum) * (reference - candidate).
    weighted: f64,
    reference_best: Best,
    candidate_best: Best,
    next_reference: f64,
    next_candidate: f64,
    pub(crate) identical: bool,
    pub(crate) squares: f64,
    pub(crate) reference_squares: f64,
    pub(crate) max_abs: f64,
    pub(crate) worst_token: usize,
    /// Token id and whether it is the candidate's, of the first logit that is NaN or infinite.
    pub(crate) non_finite: Option<(usize, bool, f32)>,
}

impl Position {
    pub(crate) fn new(next: Option<u32>) -> Self {
        Self {
            next: next.map(|token| token as usize),
            reference: LogSum::EMPTY,
            candidate: LogSum::EMPTY,
            weighted: 0.0,
            reference_best: Best::EMPTY,
            candidate_best: Best::EMPTY,
            next_reference: 0.0,
            next_candidate: 0.0,
            identical: true,
            squares: 0.0,
            reference_squares: 0.0,
            max_abs: 0.0,
            worst_token: 0,
            non_finite: None,
        }
    }

    /// Logits of the tokens `first ..` of both models.
    pub(crate) fn add(&mut self, first: usize, reference: &[f32], candidate: &[f32]) {
        for (offset, (r, c)) in reference.iter().zip(candidate).enumerate() {
            let token = first + offset;
            if !(r.is_finite() && c.is_finite()) {
                let value = if r.is_finite() { *c } else { *r };
                self.non_finite = self.non_finite.or(Some((token, r.is_finite(), value)));
                return;
            }
            self.add_logit(token, *r, *c);
        }
    }

    fn add_logit(&mut self, token: usize, r: f32, c: f32) {
        self.identical &= r.to_bits() == c.to_bits();
        self.reference_best.add(token, r);
        self.candidate_best.add(token, c);
        let (r, c) = (f64::from(r), f64::from(c));
        let difference = r - c;
        if difference.abs() > self.max_abs {
            self.max_abs = difference.abs();
            self.worst_token = token;
        }
        self.squares += difference * difference;
        self.reference_squares += r * r;
        let (scale, weight) = self.reference.add(r);
        self.candidate.add(c);
        self.weighted = self.weighted * scale + weight * difference;
        if self.next == Some(token) {
            (self.next_reference, self.next_candidate) = (r, c);
        }
    }

    /// KL(reference || candidate) in nats: sum of p (log p - log q). Rounding below zero is cut off.
    pub(crate) fn kl(&self) -> f64 {
        let kl = self.weighted / self.reference.sum - (self.reference.value() - self.candidate.value());
        kl.max(0.0)
    }

    /// Whether both have the same most likely token.
    pub(crate) fn top1(&self) -> bool {
        self.reference_best.token == self.candidate_best.token
    }

    /// Distance between the two largest logits of the reference.
    pub(crate) fn margin(&self) -> f32 {
        self.reference_best.value - self.reference_best.second
    }

    /// Log-probabilities of the token that follows: reference, candidate.
    pub(crate) fn next_log_probabilities(&self) -> Option<(f64, f64)> {
        self.next.map(|_| (self.next_reference - self.reference.value(), self.next_candidate - self.candidate.value()))
    }
}
