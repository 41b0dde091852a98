//! What `Isa` promises: the same bits from plain loops, names that lead back.

use rwkv_forge_simd::{Isa, Pass};

/// Sums of products in a form that an optimizer allowed to fuse, or to reorder, would change.
struct Mixed<'a>(&'a [f32], &'a mut [f32]);

impl Pass for Mixed<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut sums = [0f32; 16];
        for (i, (out, x)) in self.1.iter_mut().zip(self.0).enumerate() {
            let square = x * x + 1.000_1;
            *out = x.mul_add(square, -0.3) / (square * 3.3 - x);
            sums[i % 16] = out.mul_add(*x, sums[i % 16]);
        }
        sums.iter().sum()
    }
}

#[test]
fn plain_loops_give_the_same_bits_on_every_set() {
    let values: Vec<f32> = (0..1000u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
    let mut expected = vec![0.0; values.len()];
    let sum = Isa::by_name("scalar").unwrap().run(Mixed(&values, &mut expected));
    for isa in Isa::all() {
        let mut out = vec![0.0; values.len()];
        assert_eq!(isa.run(Mixed(&values, &mut out)).to_bits(), sum.to_bits(), "{isa}");
        assert_eq!(out, expected, "{isa}");
    }
    // The values tell a fused operation from two: otherwise the comparison above would show nothing.
    assert!(values.iter().any(|x| x.mul_add(*x, 1.000_1).to_bits() != (x * x + 1.000_1).to_bits()));
}

#[test]
fn names_lead_back_and_unknown_ones_list_what_there_is() {
    let all = Isa::all();
    assert_eq!(all.first().map(|isa| isa.name()), Some("scalar"));
    assert_eq!(all.last(), Some(&Isa::best()));
    for isa in all {
        assert_eq!(Isa::by_name(isa.name()).unwrap(), isa);
    }
    let message = Isa::by_name("sse9").unwrap_err().to_string();
    assert!(message.contains("sse9") && message.contains("scalar"), "{message}");
}
