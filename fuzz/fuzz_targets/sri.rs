//! `assetgate::fuzz::sri` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::sri::seeds),
    |data: &[u8]| fuzz::sri::run(data)
);
