//! The order of the modules: each imports only those before it. `src/lib.rs` shows the picture.

use std::{fs, path::Path};

/// A module may use what stands before it.
const ORDER: [&str; 27] = [
    "age", "backoff", "budget", "draw", "lanes", "key", "meter", "outcome", "eject", "endpoint",
    "hint", "tls", "resolve", "subset", "probe", "check", "set", "policy", "primary", "registry",
    "balancer", "driver", "builder", "service", "http", "clients", "pools",
];

#[test]
fn each_module_imports_only_those_before_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for (place, module) in ORDER.iter().enumerate() {
        let mut files = vec![src.join(format!("{module}.rs"))];
        let mut folders = vec![src.join(module)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path)
                }
            }
        }
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for used in imports(&code.collect::<Vec<_>>().join("\n")) {
                let rank = ORDER.iter().position(|other| *other == used);
                let rank = rank.unwrap_or_else(|| {
                    panic!("{}: {used} has no place in the order", file.display())
                });
                assert!(rank <= place, "{} uses crate::{used}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "the check must see the imports, it saw {seen}");
    let top: Vec<String> = fs::read_dir(&src)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let placed =
        |name: &&String| ORDER.contains(&name.trim_end_matches(".rs")) || *name == "lib.rs";
    assert!(
        top.iter().all(|name| placed(&name)),
        "a module without a place: {top:?}"
    );
}

/// The modules after each `crate::`, be it one or a list in braces.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut found = Vec::new();
    for (at, matched) in code.match_indices("crate::") {
        let rest = &code[at + matched.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.push(name(list[start..i].trim_start()));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found.retain(|module| {
        !module.is_empty() && module.chars().next().is_some_and(char::is_lowercase)
    });
    found
}
