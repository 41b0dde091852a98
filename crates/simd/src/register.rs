//! What the registers of f32 of all instruction sets have in common, written once.

/// Declares a register of f32 and implements [`Lanes`](crate::Lanes) for it: operations that one intrinsic does are listed with it, the
/// rest of the implementation is written out behind them.
///
/// The `unsafe` blocks call an operation on registers, or read or write `$count` f32 of a slice that was checked to be that long, at
/// any alignment. They require the CPU features of the module that declares the register, which says why they are there.
macro_rules! register {
    (
        $(#[$meta:meta])*
        $name:ident($inner:ty): $count:literal lanes, mask $mask:ty;
        splat $splat:ident, load $load:ident, store $store:ident;
        of one: $($one:ident $of_one:expr),*;
        of two: $($two:ident $of_two:expr),*;
        comparisons: $($comparison:ident $compare:expr),*;
        $($rest:tt)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name($inner);

        impl crate::Lanes for $name {
            const COUNT: usize = $count;
            type Mask = $mask;

            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: see the macro.
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            fn load(from: &[f32]) -> Self {
                let from = &from[..$count];
                // SAFETY: see the macro.
                Self(unsafe { $load(from.as_ptr()) })
            }

            #[inline(always)]
            fn store(self, to: &mut [f32]) {
                let to = &mut to[..$count];
                // SAFETY: see the macro.
                unsafe { $store(to.as_mut_ptr(), self.0) }
            }

            $(
                #[inline(always)]
                fn $one(self) -> Self {
                    // SAFETY: see the macro.
                    Self(unsafe { $of_one(self.0) })
                }
            )*

            $(
                #[inline(always)]
                fn $two(self, other: Self) -> Self {
                    // SAFETY: see the macro.
                    Self(unsafe { $of_two(self.0, other.0) })
                }
            )*

            $(
                #[inline(always)]
                fn $comparison(self, other: Self) -> $mask {
                    // SAFETY: see the macro.
                    unsafe { $compare(self.0, other.0) }
                }
            )*

            $($rest)*
        }
    };
}

pub(crate) use register;
