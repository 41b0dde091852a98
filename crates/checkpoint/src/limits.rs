//! What a reader accepts at most. Every number that a file supplies is compared with one of these, and with the
//! bytes that are really there, before anything is allocated.

/// Budgets of the checkpoint readers. The defaults hold every released RWKV checkpoint with room to spare; they also
/// keep the memory that a hostile file can claim below 256 MiB beyond the tensors themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `data.pkl`, or of the pickles at the start of a legacy file. Default 64 MiB.
    pub pickle_bytes: u64,
    /// Pickle opcodes executed. Default 16,777,216.
    pub opcodes: u64,
    /// Values alive on the pickle machine's stack. Default 1,048,576.
    pub stack: usize,
    /// Entries of the pickle memo; also one more than the highest memo index. Default 4,194,304.
    pub memo: usize,
    /// Distinct values that a pickle may create. Default 1,048,576.
    pub values: usize,
    /// Values that a pickle stands for when shared parts are counted each time they are used. Default 16,777,216.
    pub expanded: u64,
    /// Nesting of containers in a pickle. Default 32.
    pub depth: u32,
    /// Bytes of a string in a pickle. Default 64 KiB.
    pub string_bytes: usize,
    /// Bytes of a tensor's name. Default 1 KiB.
    pub tensor_name_bytes: usize,
    /// Bytes of the module and of the name of a Python global. Default 256 each.
    pub global_bytes: usize,
    /// Entries of a zip archive. Default 65,535.
    pub zip_entries: u64,
    /// Bytes of an entry's name in a zip archive. Default 1 KiB.
    pub zip_name_bytes: usize,
    /// Bytes of a zip archive's central directory. Default 16 MiB.
    pub zip_directory_bytes: u64,
    /// Tensors in a checkpoint. Default 65,535.
    pub tensors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pickle_bytes: 64 << 20,
            opcodes: 16 << 20,
            stack: 1 << 20,
            memo: 4 << 20,
            values: 1 << 20,
            expanded: 16 << 20,
            depth: 32,
            string_bytes: 64 << 10,
            tensor_name_bytes: 1 << 10,
            global_bytes: 256,
            zip_entries: 65_535,
            zip_name_bytes: 1 << 10,
            zip_directory_bytes: 16 << 20,
            tensors: 65_535,
        }
    }
}
