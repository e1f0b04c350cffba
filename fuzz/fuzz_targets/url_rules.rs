//! `assetgate::fuzz::url_rules` under libFuzzer.
#![no_main]

use assetgate::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds(fuzz::url_rules::seeds),
    |data: &[u8]| fuzz::url_rules::run(data)
);
