//! `assetgate::fuzz::bb_entry` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::bb_entry::seeds),
    |data: &[u8]| fuzz::bb_entry::run(data)
);
