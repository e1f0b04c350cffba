//! `assetgate::fuzz::entry` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::entry::seeds),
    |data: &[u8]| fuzz::entry::run(data)
);
