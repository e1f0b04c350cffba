//! Files of operators under fuzzing: a shared netrc, rules taken from others,
//! and URLs that clients choose to get around these.

#![allow(clippy::unwrap_used, reason = "a panic is how a finding is told")]

/// The `netrc` parser.
pub mod netrc {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use secrecy::SecretString;
    use url::Url;

    use crate::fetcher::credentials::Netrc;

    /// Files of every form that is accepted.
    #[must_use]
    pub fn seeds() -> Vec<Vec<u8>> {
        let seeds = [
            "machine a.example login me password hunter2",
            "# c\nmachine a.example\n\tlogin me\n\tpassword \"hun\\\"ter 2\" # c\ndefault login x\n",
            "macdef init\ncd /\n\nmachine B.example account x password #p\r\n",
            "machine a.example login me:you password p",
            "machine [::1] password \"p",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    }

    /// One file. What is sent stands in it, and no error quotes it.
    pub fn run(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        match Netrc::parse(&SecretString::from(text.to_owned())) {
            Err(error) => assert!(!error.to_string().contains("hunter2")),
            Ok((netrc, _)) => {
                assert!(!format!("{netrc:?}").contains("hunter2"));
                for host in ["a.example", "b.example", "[::1]"] {
                    let url = Url::parse(&format!("https://{host}/")).unwrap();
                    let Some(value) = netrc.authorization(&url) else {
                        continue;
                    };
                    assert!(value.is_sensitive());
                    let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
                    let pair = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
                    let (login, _) = pair.split_once(':').unwrap();
                    let plain = !text.contains('\\');
                    assert!(!plain || text.contains(login), "a login from nowhere");
                }
            }
        }
    }
}

/// Rules and the URLs they are asked about.
pub mod url_rules {
    use crate::asset::Uri;
    use crate::fetcher::host;
    use crate::fetcher::target::Target;
    use crate::fetcher::url_rules::{Decision, MAX_URL, UrlRules};

    /// A file, an empty line, and a URL.
    #[must_use]
    pub fn seeds() -> Vec<Vec<u8>> {
        let seeds = [
            "block *\nallow a.example\x00https://a.example/x",
            "rewrite a.example/(.*) b.example/$1\nblock b.example\x00http://A.example/../x?y",
            "rewrite ([^/]+)/(?<n>.*) http://${n}.example/$1\\$$0\x00http://u:p@h/x#f",
            "# c\nall_blocked_message no\nblock h\x00http://h./",
            "rewrite (a|b)*?(.*) $1$1$1$2\x00https://aaaa/",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    }

    /// One file and one URL. Whatever the rules make, no blocked host is asked.
    pub fn run(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        let (rules, url) = text
            .split_once('\x00')
            .unwrap_or((text, "https://a.example/"));
        let parsed = match UrlRules::parse(rules) {
            Ok(parsed) => parsed,
            Err(error) => return assert!(error.to_string().len() < 16_384),
        };
        let Ok(target) = Target::parse(&Uri::new(url.to_owned())) else {
            return;
        };
        let asked = match parsed.decide(&target) {
            Decision::Unchanged => vec![target],
            Decision::Instead(made) => made,
            Decision::Blocked(_) | Decision::NoUrl(_) => return,
        };
        assert!(!asked.is_empty());
        let line = |target: &Target, word: &str| {
            let hosts: Vec<&str> = host::with_parents(host::of(&target.url)).collect();
            let mut named = rules.lines().filter_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(word)).then(|| words.next().unwrap_or("").to_owned())
            });
            named.any(|name| {
                let wild = name == "*" && word == "block";
                wild || host::normal(&name).is_some_and(|name| hosts.contains(&&*name))
            })
        };
        for target in &asked {
            assert!(target.url.as_str().len() <= MAX_URL.max(url.len() * 3 + 16));
            assert!(matches!(target.url.scheme(), "http" | "https"));
            assert!(
                !line(target, "block") || line(target, "allow"),
                "{}",
                target.url
            );
        }
    }
}
