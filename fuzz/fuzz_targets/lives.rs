#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| { jobsled_fuzz::run("lives", data); });
