#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| signalr_gateway::fuzzing::run("proxy_protocol", data));
