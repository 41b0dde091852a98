//! Picks for a file, whose bytes are not those of the items alone.

use super::{AllocationError, Choice, Solution, least_harm, smallest};

/// The pick of least harm whose file is not too large. What a file takes beside the items (names of types, padding) depends on the
/// pick by some bytes, so `excess` lays the file of a pick out and says by how many bytes it is too large; 0 when it fits.
///
/// Ends for any `excess`: each pick takes fewer bytes than the one before, and below the smallest options there is none. With no items,
/// or with items of a single option, that is after one pick.
///
/// # Errors
/// [`AllocationError::TooSmall`], in bytes of the items, when even the smallest options make the file too large; those of
/// [`least_harm`], and what `excess` returns.
pub fn least_harm_in_file<E: From<AllocationError>>(
    items: &[Vec<Choice>],
    mut budget: u64,
    mut excess: impl FnMut(&Solution) -> Result<u64, E>,
) -> Result<Solution, E> {
    loop {
        let solution = least_harm(items, budget)?;
        let over = excess(&solution)?;
        if over == 0 {
            return Ok(solution);
        }
        let least = smallest(items);
        if solution.bytes <= least {
            return Err(AllocationError::TooSmall { budget, least: budget.saturating_add(over) }.into());
        }
        // As often as it takes until the pick is another: what the budget leaves unused, the pick would not notice the loss of.
        let unused = budget.saturating_sub(solution.bytes);
        let cut = over.saturating_mul(unused / over + 1);
        let needed = least.saturating_add(cut);
        if needed > budget {
            return Err(AllocationError::TooSmall { budget, least: needed }.into());
        }
        budget -= cut;
    }
}
