//! Functions of values that containers store, and the way back.

use rwkv_forge_model::ValueForm;
use rwkv_forge_tensor::bf16_to_f32;

const FORMS: [ValueForm; 5] = [ValueForm::Canonical, ValueForm::NegExp, ValueForm::ExpNegExp, ValueForm::Exp, ValueForm::Eighth];

#[test]
fn what_was_a_16_bit_value_comes_back_with_the_same_function() {
    for form in FORMS {
        let (mut values, mut same) = (0u32, 0u32);
        for bits in 0..=u16::MAX {
            let x = bf16_to_f32(bits);
            // Decays and bonuses are of this size; x / 8 of what is nearly subnormal is not exact.
            if !x.is_finite() || x.abs() > 1e3 || x != 0.0 && x.abs() < 1e-30 {
                continue;
            }
            let stored = form.apply(x);
            if !stored.is_finite() {
                continue;
            }
            let back = form.undo(stored);
            assert!(back.is_finite(), "{form:?} of {x} is {stored}, which comes back as {back}");
            assert_eq!(form.apply(back).to_bits(), stored.to_bits(), "{form:?} of {x} comes back as {back}");
            values += 1;
            same += u32::from(back == x);
        }
        // Numbers whose functions are equal cannot all come back; those between 1/100 and 4 have functions of their own.
        assert!(same > values / 20, "{form:?}: {same} of {values}");
    }
}

#[test]
fn ordinary_decays_come_back_as_they_were() {
    for bits in 0..=u16::MAX {
        let x = bf16_to_f32(bits);
        if (0.02..4.0).contains(&x.abs()) {
            for form in FORMS {
                assert_eq!(form.undo(form.apply(x)), x, "{form:?}");
            }
        }
    }
}

#[test]
fn values_that_no_number_has_as_its_function_give_no_number() {
    assert!(ValueForm::NegExp.undo(0.5).is_nan());
    assert!(ValueForm::ExpNegExp.undo(1.5).is_nan());
    assert!(ValueForm::Exp.undo(-0.5).is_nan());
}
