//! What rules mean, case by case as Bazel has them, and files that are none.

use proptest::prelude::*;

use super::*;

/// What is asked for each URL; `blocked` and `no URL` stand for themselves.
fn asked(rules: &str, urls: &[&str]) -> Vec<String> {
    let rules = UrlRules::parse(rules).unwrap();
    let one = |url: &&str| {
        let target = Target::parse(&Uri::new((*url).to_owned())).unwrap();
        match rules.decide(&target) {
            Decision::Unchanged => vec![target.url.to_string()],
            Decision::Instead(made) => made.iter().map(|t| t.url.to_string()).collect(),
            Decision::Blocked(_) => vec!["blocked".to_owned()],
            Decision::NoUrl(line) => vec![format!("no URL, line {line}")],
        }
    };
    urls.iter().flat_map(one).collect()
}

fn problems(rules: &str) -> Vec<(usize, String)> {
    match UrlRules::parse(rules) {
        Err(RulesError::Lines(problems)) => problems.into_iter().map(|p| (p.line, p.why)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_rules_nothing_changes() {
    for rules in ["", "\n  \n\t\n", "# block *\n   # rewrite a b c d\n"] {
        assert_eq!(asked(rules, &["http://a/x"]), ["http://a/x"]);
    }
}

#[test]
fn block_is_about_a_host_and_those_below_it_whatever_the_scheme() {
    let urls = [
        "http://bad.example/x",
        "https://bad.example:8443/",
        "https://www.bad.example/",
        "https://notbad.example/",
        "https://example/",
        "https://other.example/bad.example",
    ];
    assert_eq!(
        asked("block bad.example", &urls),
        [
            "blocked",
            "blocked",
            "blocked",
            "https://notbad.example/",
            "https://example/",
            "https://other.example/bad.example"
        ]
    );
}

#[test]
fn allow_beats_block_and_the_star_wherever_they_stand() {
    let urls = [
        "https://a.example/",
        "https://w.a.example/",
        "https://b.example/",
    ];
    let expected = ["https://a.example/", "https://w.a.example/", "blocked"];
    for rules in [
        "block *\nallow a.example",
        "allow a.example\nblock *",
        "allow a.example\nblock example",
        "block a.example\nblock b.example\nallow a.example",
    ] {
        assert_eq!(asked(rules, &urls), expected, "{rules}");
    }
    assert_eq!(asked("allow a.example", &urls)[2], "https://b.example/");
    assert_eq!(asked("block *\nallow *", &urls), ["blocked"; 3]);
}

#[test]
fn no_other_spelling_of_a_host_gets_around_a_block() {
    let urls = [
        "http://BAD.Example/",
        "http://bad.example./",
        "http://b%61d.example/",
        "http://user:bad@bad.example/",
        "http://good.example@bad.example/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://[::ffff:0:1]/",
    ];
    let rules = "block Bad.Example.\nblock 127.0.0.1\nblock [0:0:0:0:0:ffff:0:1]";
    assert_eq!(asked(rules, &urls), ["blocked"; 8]);
}

#[test]
fn rewrite_matches_all_behind_the_scheme_and_keeps_the_scheme() {
    let rules = "rewrite good.example/foo/(.*) mirror.example/$1/foo";
    let urls = [
        "https://good.example/foo/bar?v=1",
        "http://good.example/foo/bar",
        "https://good.example/other/foo/bar",
        "https://my.good.example/foo/bar",
    ];
    assert_eq!(
        asked(rules, &urls),
        [
            "https://mirror.example/bar?v=1/foo",
            "http://mirror.example/bar/foo",
            "https://good.example/other/foo/bar",
            "https://my.good.example/foo/bar"
        ]
    );
    let rules = "rewrite a.example/(.*) http://m/$1\nrewrite b.example/(.*) https://m/$1";
    let urls = ["https://a.example/x", "http://b.example/y"];
    assert_eq!(asked(rules, &urls), ["http://m/x", "https://m/y"]);
}

#[test]
fn several_rewrites_give_several_urls_in_order_and_each_once() {
    let rules = "rewrite a.example/(.*) m.example/1/$1\n\
                 rewrite b.example/(.*) m.example/no/$1\n\
                 rewrite .*/(.*) m.example/2/$1\n\
                 rewrite a.example/(.*) m.example/1/$1\n\
                 rewrite (a.*) $1";
    assert_eq!(
        asked(rules, &["https://a.example/x"]),
        [
            "https://m.example/1/x",
            "https://m.example/2/x",
            "https://a.example/x"
        ],
        "the original only where a rule says so"
    );
    let many: String = (0..200).map(|i| format!("rewrite (.*) m/{i}\n")).collect();
    assert_eq!(asked(&many, &["http://a/x"]).len(), MAX_URLS);
}

#[test]
fn rewrites_come_before_blocks_and_allows() {
    let urls = ["https://www.bad.example/", "https://bad.example/foo/bar"];
    for rules in [
        "block bad.example\nrewrite bad.example/foo/(.*) mirror.example/$1",
        "block *\nallow mirror.example\nrewrite bad.example/foo/(.*) mirror.example/$1",
    ] {
        assert_eq!(
            asked(rules, &urls),
            ["blocked", "https://mirror.example/bar"]
        );
    }
    let rules = "rewrite a.example/(.*) b.example/$1\nrewrite a.example/(.*) c.example/$1";
    let url = ["https://a.example/x"];
    let one = format!("{rules}\nblock b.example");
    assert_eq!(asked(&one, &url), ["https://c.example/x"], "what is left");
    let both = format!("{one}\nblock c.example");
    assert_eq!(asked(&both, &url), ["blocked"], "and never the original");
}

#[test]
fn substitutions_are_those_of_java() {
    for (rule, made) in [
        ("rewrite (.)(.*) m/$0", "http://m/h/a?b"),
        (
            "rewrite (?<host>[^/]+)/(?<rest>.*) m/${rest}/${host}",
            "http://m/a?b/h",
        ),
        ("rewrite (.*)/(.*) m/$2/$1", "http://m/a?b/h"),
        ("rewrite (.*)/.* m/$10", "http://m/h0"),
        (r"rewrite .* m/\$1\\\x", "http://m/$1/x"),
        ("rewrite (x)?.* m/[$1]", "http://m/[]"),
        ("rewrite (?i)H/(.*) m/$1", "http://m/a?b"),
        // The whole matches; what is replaced is the first find.
        ("rewrite h/(.*?) m/$1", "http://m/a?b"),
        ("rewrite (h|h/.*) m$1", "http://mh/a?b"),
        (r"rewrite h/([+*]|a)+\?+(.) m/$2", "http://m/b"),
    ] {
        assert_eq!(asked(rule, &["http://h/a?b"]), [made], "{rule}");
    }
}

#[test]
fn what_rules_see_is_what_would_be_requested() {
    let rules = "rewrite h.example/good/(.*) m.example/$1\nblock h.example";
    let urls = [
        "https://u:p@H.example:443/good/x#frag",
        "https://h.example/good/../evil",
        "https://h.example/%67ood/x",
    ];
    let expected = ["https://m.example/x", "blocked", "blocked"];
    assert_eq!(asked(rules, &urls), expected);
    // A URL without a path.
    assert_eq!(
        asked("rewrite h.example m", &["http://h.example"]),
        ["http://m/"]
    );
    assert_eq!(
        asked("rewrite h.example/ m", &["http://h.example"]),
        ["http://m/"]
    );
}

#[test]
fn what_a_rule_makes_may_be_no_url() {
    let rules = "\nrewrite a.example/(.*) /$1";
    assert_eq!(asked(rules, &["http://a.example/x"]), ["no URL, line 2"]);
    assert_eq!(
        asked("rewrite a/(.*) $1:x/", &["http://a/b:"]),
        ["no URL, line 1"]
    );
    let one_good = format!("{rules}\nrewrite a.example/(.*) m/$1");
    assert_eq!(asked(&one_good, &["http://a.example/x"]), ["http://m/x"]);
    let long = format!("http://a/{}", "x".repeat(MAX_URL / 2));
    assert_eq!(
        asked("rewrite a/(.*) m/$1$1$1", &[&long]),
        ["no URL, line 1"]
    );
}

#[test]
fn the_message_is_the_operators() {
    let message = |rules: &str| {
        let rules = UrlRules::parse(rules).unwrap();
        let target = Target::parse(&Uri::new("http://a/")).unwrap();
        match rules.decide(&target) {
            Decision::Blocked(message) => message,
            _ => panic!(),
        }
    };
    assert_eq!(message("block *"), None);
    let said = message("block a\n  all_blocked_message  Sorry, Dave: see  http://help/ \n");
    assert_eq!(said.as_deref(), Some("Sorry, Dave: see  http://help/"));
}

#[test]
fn every_bad_line_is_told_by_number_and_none_is_quoted() {
    for (line, why) in [
        ("hello", "begins with none of"),
        ("Block a", "begins with none of"),
        ("block", "of the form `block HOST`"),
        ("allow a b", "of the form `allow HOST`"),
        ("block a # comment", "of the form"),
        ("block https://a/", "does not name a host"),
        ("block a:8080", "does not name a host"),
        ("block a/b", "does not name a host"),
        ("block *.a", "hosts below it are meant anyway"),
        ("block a*", "does not name a host"),
        ("rewrite a", "`rewrite PATTERN SUBSTITUTION`"),
        ("rewrite a b c", "`rewrite PATTERN SUBSTITUTION`"),
        ("rewrite (a b", "unclosed group"),
        ("rewrite a(?=b) b", "look-around"),
        (r"rewrite (a)\1 b", "backreferences are not supported"),
        ("rewrite a++ b", "possessive quantifier"),
        ("rewrite (a[+*]\\++)?+ b", "possessive quantifier"),
        ("rewrite a{2}+ b", "possessive quantifier"),
        ("rewrite (?>a) b", "unrecognized flag"),
        ("rewrite (a{1000}){1000} b", "KiB once compiled"),
        ("rewrite (a) b$2", "`$2` where the pattern has 1 groups"),
        ("rewrite (a) b$", "`$` without a number"),
        (
            "rewrite (a) b${x}",
            "a group that the pattern does not have",
        ),
        ("rewrite (a) b${x", "`${` without `}`"),
        ("rewrite (a) b\\", "ends in `\\`"),
        ("rewrite (a) b/urlencode($1)", "`urlencode`"),
        ("all_blocked_message", "has no message"),
        ("all_blocked_message a\u{1b}[1m", "control characters"),
    ] {
        let file = format!("# one\n\n{line}\nblock fine\n");
        let problems = problems(&file);
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert_eq!(problems[0].0, 3, "{line}");
        assert!(problems[0].1.contains(why), "{line}: {}", problems[0].1);
    }
    let twice = problems("all_blocked_message one\nblock *\nall_blocked_message two");
    assert_eq!(twice[0].0, 3);
    let all = UrlRules::parse("x\nrewrite (a u:hunter2@b/$9\nblock a/").unwrap_err();
    let all = all.to_string();
    for part in ["line 1 ", "line 2 ", "line 3 "] {
        assert!(all.contains(part), "{all}");
    }
    assert!(!all.contains("hunter2"));
    let many = UrlRules::parse(&"x\n".repeat(1000))
        .unwrap_err()
        .to_string();
    assert!(
        many.len() < 5000 && many.ends_with("and 980 more"),
        "{many}"
    );
}

#[test]
fn everything_has_a_bound() {
    let rewrites = "rewrite a b\n".repeat(1001);
    assert_eq!(problems(&rewrites)[0].0, 1001);
    let hosts: String = (0..50_001).map(|i| format!("block h{i}\n")).collect();
    assert_eq!(problems(&hosts)[0].0, 50_001);
    let long = format!("rewrite {} b", "a".repeat(5000));
    assert!(problems(&long)[0].1.contains("longer than"));
    let message = format!("all_blocked_message {}", "a".repeat(1001));
    assert!(problems(&message)[0].1.contains("more than 1000 bytes"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules");
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(UrlRules::read(&file).unwrap_err(), RulesError::TooLarge);
    std::fs::write(&file, b"block \xff").unwrap();
    assert_eq!(UrlRules::read(&file).unwrap_err(), RulesError::NotText);
    let none = UrlRules::read(&dir.path().join("none")).unwrap_err();
    assert!(matches!(none, RulesError::Unreadable(_)));
}

#[test]
fn user_info_in_a_substitution_is_a_credential_and_nothing_else_is() {
    let hold = |rule: &str| UrlRules::parse(rule).unwrap().hold_credentials();
    for rule in [
        "rewrite (.*) user:pass@m/$1",
        "rewrite (.*) https://token@m/$1",
        "rewrite (.*) $1@m/",
    ] {
        assert!(hold(rule), "{rule}");
    }
    for rule in [
        "rewrite (.*)@(.*) m/$1@$2",
        "rewrite (.*) https://m/@/$1",
        "block a",
    ] {
        assert!(!hold(rule), "{rule}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// With `block *`, only what is allowed is asked, whatever is made of it.
    #[test]
    fn nothing_but_what_is_allowed_is_asked(
        from in "[a-c](\\.[a-c]){0,2}",
        to in "(http://)?[a-c](\\.[a-c]){0,2}",
        allowed in "[a-c](\\.[a-c]){0,1}",
        rest in "[a-z/?#@:.%]{0,12}",
    ) {
        let rules = format!("block *\nallow {allowed}\nrewrite {from}/(.*) {to}/$1");
        let rules = UrlRules::parse(&rules).unwrap();
        let url = format!("https://{from}/{rest}");
        if let Ok(target) = Target::parse(&Uri::new(url))
        {
            let made = match rules.decide(&target) {
                Decision::Unchanged => vec![target],
                Decision::Instead(made) => made,
                Decision::Blocked(_) | Decision::NoUrl(_) => Vec::new(),
            };
            for target in made {
                let host = target.url.host_str().unwrap();
                prop_assert!(host == allowed || host.ends_with(&format!(".{allowed}")), "{}", host);
            }
        }
    }
}
