//! All tests of this crate as one program, so that it is linked once.

mod deep;
mod faults;
mod hybrids;
mod independent;
mod invariance;
mod load;
mod oracle;
mod precision;
mod support;
