//! The probes' reader of JSON against serde_json, on texts that were changed at random. A test of its own since
//! serde_json in the library's unit tests would change what their comparisons mean.

#[path = "../src/probe/json.rs"]
mod json;

use json::Value;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// What serde_json makes of the same text, for a comparison with an independent reader.
fn is_same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(one), serde_json::Value::Bool(other)) => one == other,
        (Value::String(one), serde_json::Value::String(other)) => one == other,
        (Value::Number(digits), serde_json::Value::Number(number)) => {
            // serde_json's quick way to a fraction may miss the last bit.
            let (a, b) = (number.as_f64(), digits.parse::<f64>().ok());
            let is_near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-12 * b.abs();
            number.as_u64() == ours.as_u64() && a.zip(b).is_some_and(is_near)
        }
        (Value::Array(one), serde_json::Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(_), serde_json::Value::Object(other)) => other
            .iter()
            .all(|(name, b)| ours.member(name).is_some_and(|a| is_same(a, b))),
        _ => false,
    }
}

#[test]
fn random_texts_are_read_as_another_reader_reads_them() {
    const SEED: u64 = 0x4A53_4F4E;
    const PAGE: &str = r#"{"state": "running", "role": "replica", "xlog": {"received_location": 67419744, "replayed_timestamp": null, "paused": false}, "n": [-1.5e+3, 0, 18446744073709551616, {"a": [[], {}]}], "é\u00e9\ud83d\ude00": "\"\\\/\b\n"}"#;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let alphabet: Vec<char> = PAGE.chars().collect();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..50_000 {
        let mut text: Vec<char> = alphabet.clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..text.len().max(1));
            if text.is_empty() {
                break;
            }
            match rng.random_range(0..4) {
                0 => text[at] = alphabet[rng.random_range(0..alphabet.len())],
                1 => drop(text.remove(at)),
                2 => text.insert(at, alphabet[rng.random_range(0..alphabet.len())]),
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        match (
            Value::read(text.as_bytes()),
            serde_json::from_str::<serde_json::Value>(&text),
        ) {
            (Ok(ours), Ok(theirs)) => {
                assert!(
                    is_same(&ours, &theirs),
                    "seed {SEED:#x} round {round}: {text}"
                );
                taken += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            // A number that no `f64` holds is JSON all the same.
            (Ok(_), Err(error)) if error.to_string().contains("out of range") => {}
            (ours, theirs) => {
                panic!("seed {SEED:#x} round {round}: {text}\n{ours:?}\n{theirs:?}")
            }
        }
    }
    assert!(taken > 5_000 && refused > 5_000, "{taken} {refused}");
}
