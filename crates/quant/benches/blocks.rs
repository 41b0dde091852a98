//! Speed of encoding and decoding, in bytes of f32 a second, on one core.
fn main() {}
