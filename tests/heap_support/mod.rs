//! The heap, watched: every allocation of the process passes here, those of the C library below us (aws-lc) included.
//!
//! Owns: `malloc` and its family, as the program that the tests are linked into may define them; they hand on to the C
//! library's own and count. Promises: counts are per thread, so that tests beside this one do not disturb.
#![allow(dead_code, unsafe_code, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

pub mod call;
pub mod peer;

use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// What this thread did to the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Calls that took memory: malloc, calloc, realloc and the aligned ones.
    pub allocations: u64,
    /// Bytes taken and not given back, as the allocator rounds them.
    pub bytes: i64,
}

thread_local! {
    static HEAP: Cell<Heap> = const { Cell::new(Heap { allocations: 0, bytes: 0 }) };
}

impl Heap {
    /// Up to now.
    pub fn now() -> Self {
        HEAP.get()
    }

    /// What happened since.
    pub fn since(self) -> Self {
        let now = Self::now();
        Self { allocations: now.allocations - self.allocations, bytes: now.bytes - self.bytes }
    }
}

// Names of glibc's own allocator, kept for programs that replace malloc.
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(memory: *mut c_void);
}

/// Notes one allocation.
fn took(memory: *mut c_void) -> *mut c_void {
    note(1, size(memory));
    memory
}

/// A thread that ends may free memory when its counts are gone; then nobody asks for them.
fn note(allocations: u64, bytes: i64) {
    let _ = HEAP.try_with(|heap| {
        let Heap { allocations: before, bytes: held } = heap.get();
        heap.set(Heap { allocations: before + allocations, bytes: held + bytes });
    });
}

fn size(memory: *mut c_void) -> i64 {
    // SAFETY: `memory` is null or came from the allocator below.
    unsafe { libc::malloc_usable_size(memory) as i64 }
}

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: the C library's own malloc.
    took(unsafe { __libc_malloc(size) })
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: the C library's own calloc.
    took(unsafe { __libc_calloc(count, size) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    note(0, -self::size(old));
    // SAFETY: the caller's `old` came from this allocator.
    took(unsafe { __libc_realloc(old, size) })
}

#[unsafe(no_mangle)]
extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    // SAFETY: the C library's own memalign.
    took(unsafe { __libc_memalign(align, size) })
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    memalign(align, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    let memory = memalign(align, size);
    if memory.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's `out` can be written to.
    unsafe { *out = memory };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(memory: *mut c_void) {
    note(0, -size(memory));
    // SAFETY: the caller's `memory` came from this allocator.
    unsafe { __libc_free(memory) }
}

/// A counter that does not count proves nothing.
#[test]
fn allocations_of_rust_and_of_c_are_counted() {
    let before = Heap::now();
    let memory: Vec<u8> = std::hint::black_box(Vec::with_capacity(1000));
    assert_eq!(before.since().allocations, 1);
    assert!((1000..1100).contains(&before.since().bytes));
    drop(memory);
    assert_eq!(before.since().bytes, 0);
    let before = Heap::now();
    let key = aws_lc_rs::agreement::PrivateKey::generate(&aws_lc_rs::agreement::ECDH_P256).unwrap();
    assert!(before.since().allocations > 0, "aws-lc allocates in C");
    drop(key);
}
