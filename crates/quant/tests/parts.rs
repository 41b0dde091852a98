//! Blocks taken apart and put together again are the same bytes; the parts are the numbers that decoding uses.

use rwkv_forge_quant::{IQ4_NL, IQ4_XS, Int8, NF4, Parted, Parts, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SF4};

const PARTED: [&dyn Parted; 15] =
    [&Q4_0, &Q4_1, &Q5_0, &Q5_1, &Q8_0, &Q2_K, &Q3_K, &Q4_K, &Q5_K, &Q6_K, &IQ4_NL, &IQ4_XS, &Int8, &NF4, &SF4];

/// Every bit of a block carries a number, so random bytes are blocks.
fn random_blocks(size: usize, count: usize) -> Vec<u8> {
    let mut state = 11u64;
    let mut byte = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    (0..size * count).map(|_| byte()).collect()
}

#[test]
fn parts_are_the_whole_block() {
    for format in PARTED {
        let size = format.encoding().block_bytes as usize;
        for block in random_blocks(size, 200).chunks(size) {
            let parts = format.take_apart(block);
            let mut again = vec![0x5a; size];
            format.put_together(&parts, &mut again);
            assert_eq!(again, block, "{}", format.encoding());
            assert_eq!(format.take_apart(&again), parts, "{}", format.encoding());
            // Planted faults: a bit of any part must show in the bytes.
            for fault in 0..5 {
                let mut parts = parts.clone();
                match fault {
                    0 => parts.halves[0] ^= 1,
                    1 => parts.codes[format.encoding().block_len as usize - 1] ^= 1,
                    2 => parts.codes[0] ^= 2,
                    3 if parts.scales != [0; 16] => parts.scales[7] ^= 1,
                    4 if parts.minima != [0; 16] => parts.minima[0] ^= 1,
                    _ => continue,
                }
                format.put_together(&parts, &mut again);
                assert_ne!(again, block, "{}: fault {fault} was not noticed", format.encoding());
            }
        }
    }
}

#[test]
fn short_slices_are_left_alone() {
    for format in PARTED {
        let size = format.encoding().block_bytes as usize;
        let mut short = vec![0x5a; size - 1];
        assert_eq!(format.take_apart(&short), Parts::ZERO, "{}", format.encoding());
        format.put_together(&Parts::ZERO, &mut short);
        assert!(short.iter().all(|byte| *byte == 0x5a), "{}", format.encoding());
    }
}

#[test]
fn biases_are_not_part_of_the_numbers() {
    // A scale of 1 and codes of 1 above the code of zero decode to the first half times one point.
    let one = 0x3c00;
    for (format, code, value) in [(&Q3_K as &dyn Parted, 5, 1.0), (&Q6_K, 33, 1.0), (&IQ4_XS, 8, 1.0), (&Q4_K, 1, 1.0), (&Q8_0, 1, 1.0)] {
        let parts = Parts { halves: [one, 0], scales: [1; 16], minima: [0; 16], codes: [code; 256] };
        let mut block = vec![0; format.encoding().block_bytes as usize];
        format.put_together(&parts, &mut block);
        let mut values = vec![0.0; format.encoding().block_len as usize];
        format.decode(&block, &mut values);
        assert!(values.iter().all(|x| *x == value), "{}", format.encoding());
    }
}
