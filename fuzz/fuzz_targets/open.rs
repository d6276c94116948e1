#![no_main]

// A panic of sled in one of its threads is contained by the engine; libFuzzer's hook would end the process. One that
// comes out of the body still does.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |data: &[u8]| { jobsled_fuzz::run("open", data); });
