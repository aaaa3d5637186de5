//! Matchers that are slow and short: what the product's faster ones must agree with.

/// Whether a host pattern of names stands for `name`, label by label from the right.
pub fn host(pattern: &str, name: &str) -> bool {
    let mut labels: Vec<&str> = name.split('.').collect();
    let mut wanted: Vec<&str> = pattern.split('.').collect();
    let stars = wanted[0].to_owned();
    if !stars.starts_with('*') {
        return labels == wanted;
    }
    wanted.remove(0);
    for want in wanted.iter().rev() {
        if labels.pop() != Some(*want) {
            return false;
        }
    }
    if stars == "*" { labels.len() == 1 } else { !labels.is_empty() }
}

/// Whether `pattern` stands for `text`, where a `*` is any run of bytes without `stop`.
pub fn glob(pattern: &[u8], text: &[u8], stop: Option<u8>) -> bool {
    // `reached[t]`: what of the pattern was read so far stands for the first `t` bytes.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for p in pattern {
        let mut next = vec![false; text.len() + 1];
        for (t, _) in reached.iter().enumerate().filter(|(_, r)| **r) {
            if *p == b'*' {
                next[t] = true;
                for (n, b) in text[t..].iter().enumerate() {
                    if Some(*b) == stop {
                        break;
                    }
                    next[t + n + 1] = true;
                }
            } else if text.get(t) == Some(p) {
                next[t + 1] = true;
            }
        }
        reached = next;
    }
    reached[text.len()]
}

/// Whether a path pattern stands for a path, by the letter of the grammar.
pub fn path(pattern: &str, path: &str) -> bool {
    let split = |text: &str| -> Option<Vec<String>> {
        Some(text.strip_prefix('/')?.split('/').map(str::to_owned).collect())
    };
    let (Some(pattern), Some(path)) = (split(pattern), split(path)) else { return false };
    // `fits[s]`: the segments of the pattern from `p` on stand for those of the path from `s` on.
    let mut fits = vec![false; path.len() + 1];
    fits[path.len()] = true;
    for (p, segment) in pattern.iter().enumerate().rev() {
        let is_last = p + 1 == pattern.len();
        let mut here = vec![false; path.len() + 1];
        for s in 0..=path.len() {
            here[s] = match segment.as_str() {
                "**" if is_last => s < path.len(),
                "**" => fits[s..].contains(&true),
                "*" => s < path.len() && !path[s].is_empty() && fits[s + 1],
                text => {
                    s < path.len() && fits[s + 1] && glob(text.as_bytes(), path[s].as_bytes(), None)
                }
            };
        }
        fits = here;
    }
    fits[0]
}
