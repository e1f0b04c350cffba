//! Every case of the conformance list that fetching has to answer for, and
//! every scenario, is a test under its id: `s3_...`, `l2_scenario_7_...`.

use std::collections::BTreeSet;
use std::path::Path;

const CASES: [(&str, &[u32]); 7] = [
    ("l", &[2, 7]),
    ("u", &[4, 5, 8]),
    ("s", &[1, 2, 3, 4, 5, 6, 7]),
    ("t", &[1, 2, 3, 4, 5]),
    ("n", &[3, 4, 5, 6]),
    ("h", &[1, 2, 3, 4]),
    ("scenario", &SCENARIOS),
];

const SCENARIOS: [u32; 30] = {
    let mut all = [0; 30];
    let mut i = 0;
    while i < 30 {
        all[i] = i as u32 + 1;
        i += 1;
    }
    all
};

/// Ids in the name of a test.
fn ids(name: &str) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let mut scenario = false;
    for word in name.split('_') {
        if scenario && let Ok(number) = word.parse() {
            found.push(("scenario".to_owned(), number));
            continue;
        }
        scenario = matches!(word, "scenario" | "scenarios");
        let digits = word.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let letters = &word[..word.len() - digits.len()];
        if let (1, Ok(number)) = (letters.len(), digits.parse()) {
            found.push((letters.to_owned(), number));
        }
    }
    found
}

/// Names of the tests in a source text.
fn tests(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in source.lines() {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if marked && let Some((head, rest)) = line.split_once("fn ") {
            assert!(head.is_empty() || head == "async ", "{line}");
            names.extend(rest.split('(').next());
            marked = false;
        }
    }
    names
}

#[test]
fn every_case_and_scenario_is_a_test_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            found.extend(tests(&source).into_iter().flat_map(ids));
        }
    }
    let mut missing = Vec::new();
    for (kind, numbers) in CASES {
        for number in numbers {
            if !found.contains(&(kind.to_owned(), *number)) {
                missing.push(format!("{kind}{number}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "no test has these ids");
}

#[test]
fn names_are_read_as_they_are_meant() {
    let of = |name| {
        let all = ids(name).into_iter();
        all.map(|(kind, n)| format!("{kind}{n}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("s03_wrong_content"), ["s3"]);
    assert_eq!(of("t3_scenario_21_when_all_cancel"), ["t3", "scenario21"]);
    let several = ["scenario23", "scenario24"];
    assert_eq!(of("scenarios_23_24_headers"), several);
    assert_eq!(of("a_503_of_64_mib_is_not_an_id"), Vec::<String>::new());
    let source = "#[tokio::test(flavor = \"x\")]\nasync fn s1_a() {\n}\nfn s2_b() {}\n\
                  #[test]\nfn s3_c() {}\n";
    assert_eq!(tests(source), ["s1_a", "s3_c"]);
}
