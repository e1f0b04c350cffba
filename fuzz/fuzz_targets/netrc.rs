//! `assetgate::fuzz::netrc` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::netrc::seeds),
    |data: &[u8]| fuzz::netrc::run(data)
);
