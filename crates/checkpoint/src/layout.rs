//! Where the elements of a tensor lie in its storage, checked and then gathered.

use rwkv_forge_tensor::Encoding;

use crate::error::{Refusal, Result, refuse};

/// Fills a buffer from an offset of the file.
pub(crate) type ReadAt<'f> = dyn FnMut(u64, &mut [u8]) -> Result<()> + 'f;

/// A validated view of a storage. Offsets and strides are in elements, dimensions in logical order.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Bytes of an element.
    pub(crate) item: u64,
    /// First byte of the first element in the file.
    pub(crate) start: u64,
    pub(crate) shape: Vec<u64>,
    strides: Vec<u64>,
    /// Elements in all.
    pub(crate) elements: u64,
    /// Elements from the first to the last one, both included.
    extent: u64,
}

impl Layout {
    /// Checks a view of a storage that has `numel` elements and begins at byte `base` of the file.
    ///
    /// # Errors
    /// `BadShape`, `SizeOverflow`, `UnsupportedLayout`, `OutOfBounds`; the message names the tensor.
    pub(crate) fn new(name: &str, encoding: Encoding, size: &[i64], stride: &[i64], offset: i64, base: u64, numel: u64) -> Result<Self> {
        let shape = dimensions(name, size)?;
        let item = u64::from(encoding.block_bytes);
        let overflow = || refuse(Refusal::SizeOverflow, format!("the size of tensor `{name}` {size:?} does not fit in 64 bits"));
        let Some(elements) = shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim)) else { return overflow() };
        if elements.checked_mul(item).is_none_or(|bytes| i64::try_from(bytes).is_err()) {
            return overflow();
        }
        let strides = positive_strides(name, &shape, stride)?;
        let Some(extent) = extent(&shape, &strides) else {
            return refuse(Refusal::SizeOverflow, format!("the strides {stride:?} of tensor `{name}` {size:?} reach beyond 64 bits"));
        };
        let outside = || {
            let message = format!("tensor `{name}` takes elements {offset} to {offset} + {extent} of a storage of {numel} elements");
            refuse(Refusal::OutOfBounds, message)
        };
        let Ok(first) = u64::try_from(offset) else { return outside() };
        if first.checked_add(extent).is_none_or(|end| end > numel) {
            return outside();
        }
        check_distinct(name, &shape, &strides)?;
        let Some(start) = first.checked_mul(item).and_then(|bytes| bytes.checked_add(base)) else { return overflow() };
        Ok(Self { item, start, shape, strides, elements, extent })
    }

    /// Whether the elements lie in logical order without gaps.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        for (dim, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *dim != 1 && *stride != expected {
                return false;
            }
            expected = expected.saturating_mul(*dim);
        }
        true
    }

    /// Bytes of the logical tensor.
    pub(crate) fn byte_len(&self) -> u64 {
        self.elements.saturating_mul(self.item)
    }

    /// Copies the elements in logical order into `out`, which has [`Layout::byte_len`] bytes. `read` fills a buffer
    /// from an offset of the file; it is asked for ascending, disjoint ranges inside the tensor's own extent.
    ///
    /// # Errors
    /// What `read` returns.
    pub(crate) fn gather(&self, out: &mut [u8], read: &mut ReadAt<'_>) -> Result<()> {
        // Dimensions from the widest stride to the narrowest: because elements never overlap, counting in this order
        // visits the storage from its beginning to its end.
        let mut order: Vec<(u64, u64, u64)> = Vec::new();
        let mut logical = 1u64;
        for (dim, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *dim > 1 {
                order.push((*stride, *dim, logical));
            }
            logical = logical.saturating_mul(*dim);
        }
        order.sort_by_key(|(stride, ..)| std::cmp::Reverse(*stride));
        let (_, inner, inner_logical) = match order.last() {
            Some((1, ..)) => order.pop().unwrap_or((1, 1, 1)),
            _ => (1, 1, 1),
        };
        let dense = self.extent.checked_div(self.elements).unwrap_or(0) <= SPARSE;
        let ahead = if dense { WINDOW_BYTES.checked_div(self.item).unwrap_or(1) } else { inner.min(WINDOW_BYTES) };
        let mut window = Window { bytes: Vec::new(), first: 0, end: self.extent, ahead, layout: self };
        let mut counter = vec![0u64; order.len()];
        loop {
            let (mut source, mut target) = (0u64, 0u64);
            for (count, (stride, _, logical)) in counter.iter().zip(&order) {
                source = source.saturating_add(count.saturating_mul(*stride));
                target = target.saturating_add(count.saturating_mul(*logical));
            }
            self.copy_run(&mut window, [source, inner, target, inner_logical], out, read)?;
            if !advance(&mut counter, &order) {
                return Ok(());
            }
        }
    }

    /// Copies `count` neighbours from element `source` on; their places in `out` are `step` elements apart.
    fn copy_run(
        &self,
        window: &mut Window<'_>,
        [mut source, mut count, mut target, step]: [u64; 4],
        out: &mut [u8],
        read: &mut ReadAt<'_>,
    ) -> Result<()> {
        let item = index(self.item);
        while count > 0 {
            let piece = window.at(source, count, read)?;
            let taken = (piece.len() as u64).checked_div(self.item).unwrap_or(0).max(1);
            if step == 1 {
                let from = index(target.saturating_mul(self.item));
                if let Some(target) = out.get_mut(from..from.saturating_add(piece.len())) {
                    target.copy_from_slice(piece);
                }
            } else {
                let stride = index(step.saturating_mul(self.item));
                let from = index(target.saturating_mul(self.item));
                let places = out.get_mut(from..).unwrap_or_default().chunks_mut(stride.max(1));
                for (place, element) in places.zip(piece.chunks_exact(item.max(1))) {
                    if let Some(place) = place.get_mut(..item) {
                        place.copy_from_slice(element);
                    }
                }
            }
            source = source.saturating_add(taken);
            target = target.saturating_add(taken.saturating_mul(step));
            count = count.saturating_sub(taken);
        }
        Ok(())
    }
}

/// Bytes a read-ahead window. Large enough that a transposed matrix is read in few calls.
const WINDOW_BYTES: u64 = 4 << 20;
/// A view that uses less than one in this many elements of its extent is read run by run, so that the bytes read stay
/// in proportion to the bytes of the tensor.
const SPARSE: u64 = 16;

/// A piece of the storage that slides upwards.
struct Window<'l> {
    bytes: Vec<u8>,
    /// Element of the view's extent that the piece begins with.
    first: u64,
    /// Elements of the extent.
    end: u64,
    /// Elements to read at once.
    ahead: u64,
    layout: &'l Layout,
}

impl Window<'_> {
    /// Bytes of up to `count` neighbours from element `source` of the extent; at least one element.
    fn at(&mut self, source: u64, count: u64, read: &mut ReadAt<'_>) -> Result<&[u8]> {
        let item = self.layout.item.max(1);
        let held = (self.bytes.len() as u64).checked_div(item).unwrap_or(0);
        if source < self.first || source >= self.first.saturating_add(held) {
            let length = self.ahead.max(1).min(self.end.saturating_sub(source));
            self.bytes.resize(index(length.saturating_mul(item)), 0);
            self.first = source;
            read(self.layout.start.saturating_add(source.saturating_mul(item)), &mut self.bytes)?;
        }
        let from = index(source.saturating_sub(self.first).saturating_mul(item));
        let wanted = index(count.saturating_mul(item));
        let until = from.saturating_add(wanted).min(self.bytes.len());
        Ok(self.bytes.get(from..until).unwrap_or_default())
    }
}

/// Counts up, last digit fastest; false after the last combination.
fn advance(counter: &mut [u64], order: &[(u64, u64, u64)]) -> bool {
    for (count, (_, dim, _)) in counter.iter_mut().zip(order).rev() {
        *count = count.saturating_add(1);
        if *count < *dim {
            return true;
        }
        *count = 0;
    }
    false
}

/// Sizes in memory: `Layout::new` made sure that the tensor's bytes fit in an `i64`.
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn dimensions(name: &str, size: &[i64]) -> Result<Vec<u64>> {
    let positive = size.iter().map(|dim| u64::try_from(*dim).ok().filter(|dim| *dim > 0));
    match positive.collect::<Option<Vec<u64>>>() {
        Some(shape) => Ok(shape),
        None => refuse(Refusal::BadShape, format!("tensor `{name}` has the shape {size:?}; expected dimensions of 1 or more")),
    }
}

fn positive_strides(name: &str, shape: &[u64], stride: &[i64]) -> Result<Vec<u64>> {
    // The stride of a dimension of 1 is never used: any value means the same.
    let strides =
        shape.iter().zip(stride).map(|(dim, stride)| if *dim == 1 { Some(1) } else { u64::try_from(*stride).ok().filter(|s| *s > 0) });
    match strides.collect::<Option<Vec<u64>>>() {
        Some(strides) => Ok(strides),
        None => {
            let message =
                format!("tensor `{name}` has the strides {stride:?}; expanded and reversed views are not read, save tensor.contiguous()");
            refuse(Refusal::UnsupportedLayout, message)
        }
    }
}

fn extent(shape: &[u64], strides: &[u64]) -> Option<u64> {
    shape.iter().zip(strides).try_fold(1u64, |extent, (dim, stride)| extent.checked_add(dim.checked_sub(1)?.checked_mul(*stride)?))
}

/// Every stride must step over all narrower dimensions, so that no two elements share a place.
fn check_distinct(name: &str, shape: &[u64], strides: &[u64]) -> Result<()> {
    let mut dims: Vec<(u64, u64)> = shape.iter().zip(strides).filter(|(dim, _)| **dim > 1).map(|(dim, stride)| (*stride, *dim)).collect();
    dims.sort_unstable();
    let mut narrower = 1u64;
    for (stride, dim) in dims {
        if stride < narrower {
            let message = format!("the strides {strides:?} of tensor `{name}` {shape:?} let elements overlap; save tensor.contiguous()");
            return refuse(Refusal::UnsupportedLayout, message);
        }
        narrower = narrower.saturating_add(dim.saturating_sub(1).saturating_mul(stride));
    }
    Ok(())
}
