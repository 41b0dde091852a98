//! Faults planted in every operation, one at a time: the comparisons of the other modules find each of them.

use rwkv_forge_simd::{LanePass, Lanes, Registers, Scalar};

use crate::{lanes, registers};

/// A result that can be wrong in one place.
trait Spoil {
    fn spoil(self) -> Self;
}

impl Spoil for [f32; 16] {
    fn spoil(mut self) -> Self {
        self[5] = f32::from_bits(self[5].to_bits() ^ 1);
        self
    }
}

impl Spoil for [i32; 16] {
    fn spoil(mut self) -> Self {
        self[9] = self[9].wrapping_add(1);
        self
    }
}

impl Spoil for [u8; 64] {
    fn spoil(mut self) -> Self {
        self[22] ^= 0x10;
        self
    }
}

impl Spoil for [[u8; 64]; 4] {
    fn spoil(mut self) -> Self {
        self[2] = self[2].spoil();
        self
    }
}

impl Spoil for bool {
    fn spoil(self) -> Self {
        !self
    }
}

impl Spoil for [bool; 4] {
    fn spoil(mut self) -> Self {
        self[2] = !self[2];
        self
    }
}

impl<const OP: usize> Spoil for Wrong<OP> {
    fn spoil(mut self) -> Self {
        self.0[1] = f32::from_bits(self.0[1].to_bits() ^ 1);
        self
    }
}

fn spoil_if<T: Spoil>(wrong: bool, value: T) -> T {
    if wrong { value.spoil() } else { value }
}

/// [`Scalar`] with operation `OP` wrong in one lane.
#[derive(Clone, Copy)]
struct Broken<const OP: usize>;

/// Declares the operations of [`Broken`], each with its number and the name under which the comparison reports it.
macro_rules! broken {
    ($($op:literal $name:ident$(<$n:ident>)?($($arg:ident: $type:ty),*) -> $result:ty, $reported:literal;)*) => {
        impl<const OP: usize> Registers for Broken<OP> {
            const FLOAT_PANELS: usize = 1;
            const FLOAT_TOKENS: usize = 4;
            const SHIFT: i32 = Scalar::SHIFT;
            type F = [f32; 16];
            type Throughput = [f32; 8];
            type Latency = [f32; 8];
            type I = [i32; 16];
            type B = [u8; 64];
            type T = [f32; 16];

            $(
                fn $name$(<const $n: u32>)?($($arg: $type),*) -> $result {
                    spoil_if(OP == $op, Scalar::$name$(::<$n>)?($($arg),*))
                }
            )*

            fn prefetch(_: &[u8], _: usize) {}
        }

        #[test]
        fn a_wrong_operation_on_registers_is_found() {
            $(
                let mut draw = registers::draws(3);
                let found = (0..100).any(|_| {
                    let round = registers::Round::new(&mut draw);
                    let every = || registers::Every(&round);
                    registers::differing(&every().run::<Broken<$op>>(), &every().run::<Scalar>()).contains(&$reported)
                });
                assert!(found, "{} is not compared", stringify!($name));
            )*
        }
    };
}

broken! {
    0 load_f32(from: &[u8; 64]) -> [f32; 16], "load_f32";
    1 load_f16(from: &[u8; 32]) -> [f32; 16], "load_f16";
    2 load_bf16(from: &[u8; 32]) -> [f32; 16], "load_bf16";
    3 to_f32(value: [i32; 16]) -> [f32; 16], "to_f32";
    4 table(entries: &[f32; 16]) -> [f32; 16], "entry";
    5 entry(table: [f32; 16], index: [i32; 16]) -> [f32; 16], "entry";
    6 splat_i32(value: i32) -> [i32; 16], "splat_i32";
    7 load_i32(from: &[u8; 64]) -> [i32; 16], "load_i32";
    8 load_u8(from: &[u8; 16]) -> [i32; 16], "load_u8";
    9 load_i8(from: &[u8; 16]) -> [i32; 16], "load_i8";
    10 sub_i32(a: [i32; 16], b: [i32; 16]) -> [i32; 16], "sub_i32";
    11 and_i32(a: [i32; 16], b: [i32; 16]) -> [i32; 16], "and_i32";
    12 shr_i32<N>(value: [i32; 16]) -> [i32; 16], "shr_i32";
    13 load_bytes(from: &[u8; 64]) -> [u8; 64], "load_bytes";
    14 splat_u8(value: u8) -> [u8; 64], "splat_u8";
    15 four_times(bytes: &[u8; 16]) -> [u8; 64], "four_times";
    16 and(a: [u8; 64], b: [u8; 64]) -> [u8; 64], "and";
    17 or(a: [u8; 64], b: [u8; 64]) -> [u8; 64], "or";
    18 shr<N>(value: [u8; 64]) -> [u8; 64], "shr";
    19 shl<N>(value: [u8; 64]) -> [u8; 64], "shl";
    20 look_up(table: [u8; 64], index: [u8; 64]) -> [u8; 64], "look_up";
    21 column<J>(bytes: [u8; 64]) -> [i32; 16], "load_bytes";
    22 dot_u7(sum: [i32; 16], codes: [u8; 64], x: i32) -> [i32; 16], "dot_u7";
    23 dot_u8(sum: [i32; 16], codes: [u8; 64], x: i32) -> [i32; 16], "dot_u8";
    24 interleave(bytes: [[u8; 64]; 4]) -> [[u8; 64]; 4], "interleave";
}

/// Four lanes with operation `OP` wrong in one of them.
#[derive(Clone, Copy)]
struct Wrong<const OP: usize>([f32; 4]);

/// Declares the operations of [`Wrong`], each with its number.
macro_rules! wrong {
    (
        groups: $($op:literal $name:ident($($arg:ident),*);)*
        masks: $($mask_op:literal $mask_name:ident($mask_arg:ident);)*
    ) => {
        impl<const OP: usize> Lanes for Wrong<OP> {
            const COUNT: usize = 4;
            type Mask = [bool; 4];

            fn splat(value: f32) -> Self {
                spoil_if(OP == 0, Self(Lanes::splat(value)))
            }

            fn load(from: &[f32]) -> Self {
                spoil_if(OP == 1, Self(Lanes::load(from)))
            }

            fn store(self, to: &mut [f32]) {
                spoil_if(OP == 2, self).0.store(to);
            }

            fn both(one: [bool; 4], other: [bool; 4]) -> [bool; 4] {
                spoil_if(OP == 3, <[f32; 4]>::both(one, other))
            }

            fn any(mask: [bool; 4]) -> bool {
                spoil_if(OP == 4, <[f32; 4]>::any(mask))
            }

            fn all(mask: [bool; 4]) -> bool {
                spoil_if(OP == 5, <[f32; 4]>::all(mask))
            }

            fn select(mask: [bool; 4], yes: Self, no: Self) -> Self {
                spoil_if(OP == 6, Self(Lanes::select(mask, yes.0, no.0)))
            }

            fn look_up(self, table: &[f32; 32]) -> Self {
                spoil_if(OP == 7, Self(self.0.look_up(table)))
            }

            $(
                fn $name(self $(, $arg: Self)*) -> Self {
                    spoil_if(OP == $op, Self(self.0.$name($($arg.0),*)))
                }
            )*

            $(
                fn $mask_name(self, $mask_arg: Self) -> [bool; 4] {
                    spoil_if(OP == $mask_op, self.0.$mask_name($mask_arg.0))
                }
            )*
        }

        #[test]
        fn a_wrong_operation_on_lanes_is_found() {
            assert!(found::<0>("splat") && found::<1>("load") && found::<2>("load") && found::<3>("both"));
            assert!(found::<4>("any") && found::<5>("all") && found::<6>("select") && found::<7>("look_up"));
            $(assert!(found::<$op>(stringify!($name)), "{} is not compared", stringify!($name));)*
            $(assert!(found::<$mask_op>(stringify!($mask_name)), "{} is not compared", stringify!($mask_name));)*
        }
    };
}

wrong! {
    groups:
    8 add(other);
    9 sub(other);
    10 mul(other);
    11 div(other);
    12 mul_add(factor, summand);
    13 sqrt();
    14 abs();
    15 min(other);
    16 max(other);
    17 nearest();
    masks:
    18 less(other);
    19 unequal(other);
}

/// Whether the comparison reports the operation of this name.
fn found<const OP: usize>(name: &str) -> bool {
    let mut draw = registers::draws(4);
    (0..100).any(|_| {
        let round = lanes::Round::new(&mut draw);
        lanes::differing(&lanes::every::<Wrong<OP>>(&round), &lanes::expected(&round, 4)).contains(&name)
    })
}

/// What sets of instructions do for minima and maxima, which differs from [`Lanes::min`] in zeros and NaN alone.
#[test]
fn a_minimum_as_ieee_defines_it_is_found() {
    let mut draw = registers::draws(8);
    let differs = (0..100).any(|_| {
        let round = lanes::Round::new(&mut draw);
        let (expected, [a, b, _]) = (lanes::expected(&round, 64), round.values);
        let ieee: Vec<u32> = (0..64).map(|lane| a[lane].min(b[lane]).to_bits()).collect();
        expected.iter().any(|(name, bits)| *name == "min" && *bits != ieee)
    });
    assert!(differs);
}
