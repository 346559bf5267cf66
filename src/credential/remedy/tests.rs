use std::collections::HashSet;

use super::*;

#[test]
fn every_code_has_one_remedy_and_a_source() {
    let mut seen = HashSet::new();
    for remedy in REMEDIES {
        assert!(remedy.source.starts_with("https://"), "{:?}", remedy.codes);
        for code in remedy.codes {
            assert!(seen.insert(code), "AADSTS{code} is listed twice");
        }
    }
    assert!(seen.len() > 50, "{}", seen.len());
}

#[test]
fn steps_are_numbered_in_order() {
    let numbers: Vec<u8> = SetupStep::ALL.iter().map(|step| step.number()).collect();
    assert_eq!(numbers, (1..=14).collect::<Vec<u8>>());
}

#[test]
fn step_is_shown_with_its_number_and_title() {
    assert_eq!(SetupStep::Proof.to_string(), format!("step 2 of 14: {}", SetupStep::Proof.title()));
    assert!(SetupStep::Proof.title().starts_with("the proof on this host"));
}
