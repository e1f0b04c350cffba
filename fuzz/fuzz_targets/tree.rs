//! `assetgate::fuzz::tree` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::tree::seeds),
    |data: &[u8]| fuzz::tree::run(data)
);
