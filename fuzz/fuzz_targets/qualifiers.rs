//! `assetgate::fuzz::qualifiers` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::qualifiers::seeds),
    |data: &[u8]| fuzz::qualifiers::run(data)
);
