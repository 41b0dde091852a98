//! Regions as callers see them: every part once, in any division, with any number of threads; panics; dropping.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rwkv_forge_pool::Pool;

fn pool(threads: usize) -> Pool {
    let pool = Pool::new(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN));
    assert_eq!(pool.threads(), threads, "the system grants so few threads");
    pool
}

/// Work that cannot be optimized away and that depends on the part alone.
fn hash(index: usize, position: usize) -> u64 {
    (0..20).fold((index as u64) << 32 | position as u64, |x, _| (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

/// Ends of parts of changing sizes, some empty.
fn ends(count: usize, seed: usize) -> Vec<usize> {
    let mut end = 0;
    (0..count)
        .map(|index| {
            end += (index * 7 + seed) % 13;
            end
        })
        .collect()
}

#[test]
fn every_part_once_and_the_same_with_any_number_of_threads() {
    for seed in 0..40 {
        let ends = ends(seed * 5, seed);
        let length = ends.last().copied().unwrap_or(0);
        let mut expected = Vec::new();
        for threads in 1..=8 {
            let pool = pool(threads);
            let calls: Vec<AtomicUsize> = ends.iter().map(|_| AtomicUsize::new(0)).collect();
            let mut out = vec![0u64; length];
            let mut locals = vec![Vec::new(); threads];
            let task = |local: &mut Vec<usize>, index: usize, part: &mut [u64]| {
                calls[index].fetch_add(1, Ordering::Relaxed);
                local.push(index);
                for (position, value) in part.iter_mut().enumerate() {
                    *value = value.wrapping_add(hash(index, position));
                }
            };
            pool.run(&mut locals, &mut out, &ends, |local| assert!(local.is_empty(), "begin runs first and once"), task);
            assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
            assert_eq!(locals.iter().map(Vec::len).sum::<usize>(), ends.len());
            if threads == 1 {
                expected = out;
            } else {
                assert_eq!(out, expected, "{threads} threads");
            }
        }
    }
}

#[test]
fn thousands_of_short_regions() {
    for threads in 2..=8 {
        let pool = pool(threads);
        let mut locals = vec![0u64; threads];
        let mut out = vec![0u64; 64];
        let ends: Vec<usize> = (1..=16).map(|part| part * 4).collect();
        for round in 0..3000 {
            pool.run(&mut locals, &mut out, &ends, |local| *local = round, |local, index, part| part.fill(*local * 100 + index as u64));
            let expected = |position: usize| round * 100 + (position / 4) as u64;
            assert!(out.iter().enumerate().all(|(position, &value)| value == expected(position)), "{threads} threads, {round}");
            if round % 100 == 0 {
                pool.lap();
            }
        }
        assert!((1..=threads).contains(&pool.active_threads()));
    }
}

#[test]
fn regions_after_helpers_went_to_sleep() {
    let pool = pool(4);
    let mut locals = [(); 4];
    for round in 0..30 {
        // Around the time that helpers spin before they sleep, so that some regions begin while they fall asleep.
        std::thread::sleep(Duration::from_micros(20 * (round % 10)));
        let mut items = [0; 9];
        pool.for_each(&mut locals, &mut items, |()| (), |(), index, item| *item = index + 1);
        assert_eq!(items, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}

#[test]
fn a_local_has_one_thread() {
    let pool = pool(8);
    // Not `Sync`: two threads with one local would show as a wrong sum at the least.
    let mut locals: Vec<RefCell<u64>> = (0..8).map(|_| RefCell::new(0)).collect();
    let mut items = vec![0u8; 10_000];
    pool.for_each(&mut locals, &mut items, |_| (), |local, _, _| *local.borrow_mut() += 1);
    assert_eq!(locals.iter().map(|local| *local.borrow()).sum::<u64>(), 10_000);
}

#[test]
fn helpers_take_part() {
    let pool = pool(2);
    let mut locals = [0u32; 2];
    let begun = Instant::now();
    // One part waits for another: only two threads together can do it. A helper may come late to a region, hence the attempts.
    while begun.elapsed() < Duration::from_secs(20) {
        let met = AtomicUsize::new(0);
        let task = |local: &mut u32, _: usize, _: &mut u8| {
            *local += 1;
            met.fetch_add(1, Ordering::AcqRel);
            let begun = Instant::now();
            while met.load(Ordering::Acquire) < 2 && begun.elapsed() < Duration::from_millis(100) {
                std::thread::yield_now();
            }
        };
        locals = [0; 2];
        pool.for_each(&mut locals, &mut [0u8; 2], |_| (), task);
        if locals == [1, 1] {
            return;
        }
    }
    panic!("the helper never came: {locals:?}");
}

#[test]
fn nothing_to_do() {
    let pool = pool(3);
    pool.run(&mut [(); 3], &mut [0u8; 0], &[], |()| panic!("begun"), |(), _, _| panic!("called"));
    pool.for_each(&mut [(); 3], &mut [0u8; 0], |()| panic!("begun"), |(), _, _| panic!("called"));
}

#[test]
fn a_panic_is_passed_on_and_the_pool_stays_usable() {
    for threads in 1..=4 {
        let pool = pool(threads);
        let mut locals = vec![0; threads];
        for bad in [0, 7, 99] {
            let mut items = vec![0; 100];
            let task = |_: &mut usize, index: usize, item: &mut usize| {
                assert!(index != bad, "part {index} fails");
                *item = 1;
            };
            let panic = catch_unwind(AssertUnwindSafe(|| pool.for_each(&mut locals, &mut items, |_| (), task))).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(format!("part {bad} fails").as_str()));
            assert!(items[bad] == 0 && items[..bad].iter().all(|&item| item == 1), "parts are begun in order");
        }
        let begin = |_: &mut usize| panic!("no beginning");
        let panic = catch_unwind(AssertUnwindSafe(|| pool.for_each(&mut locals, &mut [0; 50], begin, |_, _, _| ()))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"no beginning"));
        let mut items = [0; 100];
        pool.for_each(&mut locals, &mut items, |_| (), |_, index, item| *item = index);
        assert!(items.iter().enumerate().all(|(index, &item)| item == index));
    }
}

thread_local! {
    static OWN: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// A task cannot borrow its pool (`Pool` is not `Sync`), but it can find it by the thread that it runs on.
#[test]
fn a_nested_region_is_refused() {
    OWN.set(Some(pool(1)));
    let region = |task: &(dyn Fn() + Sync)| {
        OWN.with_borrow(|pool| pool.as_ref().map(|pool| pool.for_each(&mut [()], &mut [0], |()| (), |(), _, _| task())))
    };
    let panic = catch_unwind(AssertUnwindSafe(|| region(&|| assert!(region(&|| ()).is_none(), "it ran")))).unwrap_err();
    assert!(panic.downcast_ref::<&str>().is_some_and(|message| message.contains("pool that it runs in")), "{panic:?}");
    assert_eq!(region(&|| ()), Some(()), "usable afterwards");
}

#[test]
#[should_panic(expected = "2 locals for 3 threads")]
fn too_few_locals_are_refused() {
    pool(3).for_each(&mut [(); 2], &mut [0], |()| (), |(), _, _| ());
}

#[test]
fn dropped_at_any_time() {
    for threads in 1..=8 {
        drop(pool(threads));
        let fresh = pool(threads);
        fresh.for_each(&mut vec![(); threads], &mut [0; 20], |()| (), |(), _, _| ());
        drop(fresh);
        let asleep = pool(threads);
        std::thread::sleep(Duration::from_millis(2));
        drop(asleep);
    }
}

/// Far more threads than cores, each of which is kept from running most of the time: whatever the pool decides about how many
/// to use, results stay.
#[test]
fn under_contention() {
    let stop = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    std::hint::spin_loop();
                }
            });
        }
        let pool = pool(4);
        let mut locals = [(); 4];
        let mut out = vec![0u64; 256];
        let ends: Vec<usize> = (1..=32).map(|part| part * 8).collect();
        let begun = Instant::now();
        let mut fewest = 4;
        let mut round = 0;
        while begun.elapsed() < Duration::from_millis(600) {
            let task = |(): &mut (), index: usize, part: &mut [u64]| {
                for (position, value) in part.iter_mut().enumerate() {
                    *value = (0..20).fold(0, |sum: u64, _| sum.wrapping_add(hash(index + round, position)));
                }
            };
            pool.run(&mut locals, &mut out, &ends, |()| (), task);
            pool.lap();
            for (position, value) in out.iter().enumerate() {
                assert_eq!(*value, hash(position / 8 + round, position % 8).wrapping_mul(20));
            }
            fewest = fewest.min(pool.active_threads());
            round += 1;
        }
        stop.store(1, Ordering::Relaxed);
        assert!((1..=4).contains(&fewest));
    });
}
