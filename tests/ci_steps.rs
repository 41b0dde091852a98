//! What training repositories run in continuous integration (`action.yml`, `docs/ci.md`): the same steps, on fixtures.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
#![cfg(unix)]

use crate::support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Dir, checkpoint, json, vocab};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Every document of a run in which no step was left out.
const ALL: [&str; 7] = ["convert.json", "forms.json", "forms.xml", "inspect.json", "steps.xml", "summary.md", "verify.json"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The script, in a directory, with no variables of the caller's environment that it knows.
fn script(dir: &Dir, call: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("sh");
    command.arg(root().join("tools/check-checkpoint.sh")).arg(call).current_dir(dir.path());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHECK_") || name.starts_with("GITHUB_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

/// `check` of a model with the program under test, the forms compared quickly; returns what was printed.
fn check(dir: &Dir, model: &Path, variables: &[(&str, &str)], code: i32) -> String {
    let mut all = vec![("CHECK_FORGE", env!("CARGO_BIN_EXE_rwkv-forge")), ("CHECK_FORMS", "quick")];
    all.extend([("CHECK_MODEL", model.to_str().unwrap()), ("CHECK_VOCAB", vocab().to_str().unwrap())]);
    all.extend_from_slice(variables);
    let output = script(dir, "check", &all);
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{printed}");
    printed
}

/// Names of everything in the directory of the reports.
fn reports(dir: &Dir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("rwkv-forge-results")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn report(dir: &Dir, name: &str) -> String {
    read(dir.join("rwkv-forge-results").join(name))
}

/// A program that stands in front of another one.
fn executable(dir: &Dir, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_good_checkpoint_passes_and_leaves_complete_reports() {
    let dir = Dir::new();
    let printed = check(&dir, checkpoint("7"), &[("CHECK_MAX_KL", "0.001"), ("CHECK_MIN_TOP1", "0.9"), ("CHECK_OUTPUT", "kept.gguf")], 0);
    assert_eq!(printed.matches("passed").count(), 4, "{printed}");
    assert_eq!(reports(&dir), ALL);
    assert_eq!(dir.names(), ["kept.gguf", "rwkv-forge-results"]);
    assert!(report(&dir, "steps.xml").contains(r#"tests="4" failures="0" errors="0" skipped="0""#));
    assert!(report(&dir, "forms.xml").contains("<testsuite"));
    for name in ALL.iter().filter(|name| name.ends_with(".json")) {
        let document: serde_json::Value = serde_json::from_str(&report(&dir, name)).unwrap();
        assert_eq!(document["command"], name.trim_end_matches(".json"));
    }
    let verified: serde_json::Value = serde_json::from_str(&report(&dir, "verify.json")).unwrap();
    assert_eq!(verified["reference_form"], "parallel");
    assert_eq!(json(&["inspect", dir.join("kept.gguf").to_str().unwrap()], 0)["model"]["version"], "7");
    // The next run replaces the reports and the file, and may check less.
    check(&dir, checkpoint("7"), &[("CHECK_MAX_KL", "0.001"), ("CHECK_FORMS", "no")], 0);
    assert_eq!(reports(&dir), ["convert.json", "inspect.json", "steps.xml", "summary.md"]);
    check(&dir, checkpoint("4"), &[("CHECK_CONTAINER", "none")], 0);
    assert_eq!(reports(&dir), ["forms.json", "forms.xml", "inspect.json", "steps.xml", "summary.md"]);
}

#[test]
fn a_missed_threshold_is_1_and_leaves_no_file() {
    let dir = Dir::new();
    let variables = [("CHECK_TYPE", "q4_0"), ("CHECK_MAX_KL", "0.0001"), ("CHECK_OUTPUT", "kept.gguf"), ("GITHUB_ACTIONS", "true")];
    let printed = check(&dir, checkpoint("7"), &variables, 1);
    assert_eq!(dir.names(), ["rwkv-forge-results"], "the file that missed the threshold is gone");
    assert_eq!(reports(&dir), ALL[..6], "all but verify.json");
    let steps = report(&dir, "steps.xml");
    assert!(steps.contains(r#"tests="4" failures="1" errors="0" skipped="1""#) && steps.contains("more than 0.0001"), "{steps}");
    let annotation = printed.lines().find(|line| line.starts_with("::error")).unwrap();
    assert!(annotation.contains("tiny-rwkv7.pth,title=rwkv-forge convert::error[ThresholdNotMet]"), "{annotation}");
    let document: serde_json::Value = serde_json::from_str(&report(&dir, "convert.json")).unwrap();
    assert_eq!(document["error"]["exit_code"], 1);
}

#[test]
fn a_broken_checkpoint_is_3_and_leaves_no_file() {
    let dir = Dir::new();
    let model = dir.join("model.safetensors");
    json(&support::convert_args(checkpoint("7"), "safetensors", "f32", &model), 0);
    let good = std::fs::read(&model).unwrap();
    let header = usize::try_from(u64::from_le_bytes(good[..8].try_into().unwrap())).unwrap();
    let tensors: serde_json::Value = serde_json::from_slice(&good[8..8 + header]).unwrap();
    let offset = usize::try_from(tensors["blocks.1.att.key.weight"]["data_offsets"][0].as_u64().unwrap()).unwrap();
    let mut nan = good.clone();
    nan[8 + header + offset..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    // The first step looks at every value, too.
    let refused = "inspect";
    for bytes in [nan.as_slice(), &good[..good.len() - 5]] {
        std::fs::write(&model, bytes).unwrap();
        check(&dir, &model, &[("CHECK_MAX_KL", "1"), ("CHECK_OUTPUT", "kept.gguf")], 3);
        assert_eq!(dir.names(), ["model.safetensors", "rwkv-forge-results"]);
        let steps = report(&dir, "steps.xml");
        assert!(steps.contains(&format!(r#"<testcase name="{refused}""#)) && steps.contains(r#"failures="0" errors="1""#), "{steps}");
        assert!(!reports(&dir).contains(&"convert.json".to_owned()), "what is refused is not converted");
        let document: serde_json::Value = serde_json::from_str(&report(&dir, &format!("{refused}.json"))).unwrap();
        assert_eq!(document["error"]["exit_code"], 3);
    }
    check(&dir, &dir.join("absent.pth"), &[("CHECK_MAX_KL", "1")], 4);
    assert_eq!(reports(&dir), ["inspect.json", "steps.xml", "summary.md"]);
}

/// Forms that differ, played by a program in front of the real one, since no checkpoint makes them differ.
#[test]
fn forms_that_differ_are_1_and_the_rest_is_still_checked() {
    let dir = Dir::new();
    let forge = env!("CARGO_BIN_EXE_rwkv-forge");
    let program = format!(
        r#"#!/bin/sh
for word; do
    if [ "$word" = forms ]; then
        printf '{{\n  "command": "forms",\n  "first_beyond": [\n    {{\n      "message": "layer 1 & \\"x\\" < y"\n    }}\n  ]\n}}\n'
        exit 1
    fi
done
exec '{forge}' "$@"
"#
    );
    let program = executable(&dir, "program", &program);
    let printed = check(&dir, checkpoint("7"), &[("CHECK_MAX_KL", "0.001"), ("CHECK_FORGE", &program), ("GITHUB_ACTIONS", "true")], 1);
    assert!(printed.contains("title=rwkv-forge forms::layer 1 & \"x\" < y\n"), "{printed}");
    assert_eq!(reports(&dir), ["convert.json", "forms.json", "inspect.json", "steps.xml", "summary.md", "verify.json"]);
    let steps = report(&dir, "steps.xml");
    assert!(steps.contains(r#"tests="4" failures="1" errors="0" skipped="0""#), "{steps}");
    assert!(steps.contains(r#"message="layer 1 &amp; &quot;x&quot; &lt; y""#), "{steps}");
    assert!(report(&dir, "summary.md").contains("| failed (1) | layer 1 & \"x\" < y |"));
}

#[test]
fn wrong_variables_are_2_and_write_nothing() {
    let dir = Dir::new();
    let forge = ("CHECK_FORGE", env!("CARGO_BIN_EXE_rwkv-forge"));
    let model = ("CHECK_MODEL", checkpoint("7").to_str().unwrap());
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 8] = [
        ("check", &[forge, ("CHECK_MAX_KL", "1")], "CHECK_MODEL"),
        ("check", &[forge, model], "no threshold"),
        ("check", &[forge, model, ("CHECK_MAX_KL", "1"), ("CHECK_FORMS", "some")], "CHECK_FORMS"),
        ("check", &[model, ("CHECK_MAX_KL", "1")], "install"),
        ("key", &[("CHECK_REVISION", "main")], "no commit"),
        ("install", &[("CHECK_REVISION", "0123abc")], "give all 40"),
        ("install", &[("CHECK_SOURCE", "/nowhere")], "no checkout"),
        ("", &[], "say key, install or check"),
    ];
    for (call, variables, message) in cases {
        let output = script(&dir, call, variables);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}: {stderr}");
        assert!(stderr.contains(message), "{message}: {stderr}");
        assert_eq!(dir.names(), Vec::<String>::new());
    }
}

#[test]
fn installing_builds_once_from_pinned_sources() {
    let dir = Dir::new();
    // A cargo that notes what it is asked for and installs a program that can be run.
    std::fs::create_dir(dir.join("bin")).unwrap();
    let cargo = r#"#!/bin/sh
echo "$@" >> "$NOTES"
while [ "$1" != --root ]; do shift; done
mkdir -p "$2/bin" && printf '#!/bin/sh\n' > "$2/bin/rwkv-forge" && chmod +x "$2/bin/rwkv-forge"
"#;
    executable(&dir, "bin/cargo", cargo);
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    let notes = dir.join("notes");
    let install = |variables: &[(&str, &str)]| {
        let mut all = vec![("PATH", path.as_str()), ("NOTES", notes.to_str().unwrap())];
        all.extend_from_slice(variables);
        let output = script(&dir, "install", &all);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(&notes).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(install(&[("CHECK_FORGE", "/somewhere/rwkv-forge")]).len(), 0, "a given program is not built");
    let noted = install(&[]);
    assert!(noted[0].starts_with("install --locked --force --root ") && noted[0].ends_with("/crates/cli"), "{noted:?}");
    assert_eq!(install(&[]).len(), 1, "the same sources are installed already");
    let noted = install(&[("CHECK_REVISION", COMMIT)]);
    assert!(noted[1].contains("--git ") && noted[1].ends_with(&format!("--rev {COMMIT} rwkv-forge")), "{noted:?}");
    assert_eq!(install(&[("CHECK_REVISION", COMMIT)]).len(), 2);
    // The key of a checkout is that of its content.
    let key = |variables: &[(&str, &str)]| String::from_utf8(script(&dir, "key", variables).stdout).unwrap();
    let copy = dir.join("copy");
    std::fs::create_dir_all(copy.join("crates/cli")).unwrap();
    for name in ["Cargo.toml", "Cargo.lock", "crates/cli/Cargo.toml"] {
        std::fs::write(copy.join(name), name).unwrap();
    }
    let source = [("CHECK_SOURCE", copy.to_str().unwrap())];
    let before = key(&source);
    assert_eq!(key(&source), before);
    std::fs::write(copy.join("crates/cli/Cargo.toml"), "changed").unwrap();
    assert_ne!(key(&source), before);
    assert_eq!(key(&[("CHECK_REVISION", COMMIT)]).trim(), COMMIT);
}

/// One step of the action that runs a command.
#[derive(Default)]
struct ActionStep {
    id: String,
    environment: Vec<(String, String)>,
    command: String,
}

/// The steps of `action.yml` that run a command, read by their indentation.
fn action_steps(action: &str) -> Vec<ActionStep> {
    let mut steps: Vec<ActionStep> = Vec::new();
    for line in action.split_once("  steps:\n").unwrap().1.lines() {
        let line = if let Some(rest) = line.strip_prefix("    - ") {
            steps.push(ActionStep::default());
            format!("      {rest}")
        } else {
            line.to_owned()
        };
        let Some(step) = steps.last_mut() else { continue };
        if let Some(pair) = line.strip_prefix("        ")
            && let Some((name, value)) = pair.split_once(": ")
            && name.starts_with("CHECK_")
        {
            step.environment.push((name.to_owned(), value.to_owned()));
        } else if let Some(command) = line.strip_prefix("      run: ") {
            command.clone_into(&mut step.command);
        } else if let Some(id) = line.strip_prefix("      id: ") {
            id.clone_into(&mut step.id);
        }
    }
    steps.retain(|step| !step.command.is_empty());
    steps
}

/// Names of the action's inputs and their defaults.
fn action_inputs(action: &str) -> BTreeMap<String, String> {
    let inputs = action.split_once("inputs:\n").unwrap().1.split_once("\noutputs:").unwrap().0;
    let mut out = BTreeMap::new();
    let mut name = String::new();
    for line in inputs.lines() {
        if let Some(key) = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'))
            && !key.starts_with(' ')
        {
            key.clone_into(&mut name);
            out.insert(name.clone(), String::new());
        } else if let Some(value) = line.strip_prefix("    default: ") {
            out.insert(name.clone(), value.trim_matches('"').to_owned());
        }
    }
    out
}

/// The action's own steps, run as a runner would: expressions replaced, variables set, outputs passed on.
#[test]
fn the_steps_of_the_action_check_a_checkpoint() {
    let dir = Dir::new();
    let action = read(root().join("action.yml"));
    let mut inputs = action_inputs(&action);
    assert_eq!(inputs["container"], "gguf");
    let given = [("model", checkpoint("7")), ("vocab", vocab()), ("forge", Path::new(env!("CARGO_BIN_EXE_rwkv-forge")))];
    inputs.extend(given.map(|(name, path)| (name.to_owned(), path.to_str().unwrap().to_owned())));
    inputs.extend([("max-kl", "0.001"), ("forms", "quick")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (outputs, summary) = (dir.join("outputs"), dir.join("summary"));
    let steps = action_steps(&action);
    assert_eq!(steps.len(), 3, "key, install, check");
    for step in &steps {
        let mut command = Command::new("sh");
        // The shell of a runner stops at the first error.
        command.args(["-e", "-c", &step.command]).current_dir(dir.path()).env("GITHUB_ACTION_PATH", root());
        command.env("GITHUB_OUTPUT", &outputs).env("GITHUB_STEP_SUMMARY", &summary).env("GITHUB_ACTIONS", "true");
        for (name, value) in &step.environment {
            let expression = value.strip_prefix("${{ ").unwrap();
            let (expression, rest) = expression.split_once(" }}").unwrap();
            let value = match expression.strip_prefix("inputs.") {
                Some(input) => inputs[input].clone(),
                None if expression == "runner.temp" => dir.path().to_str().unwrap().to_owned(),
                None => panic!("{name}: {value}"),
            };
            command.env(name, value + rest);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}: {}", step.command, String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(reports(&dir), ALL);
    let outputs = read(outputs);
    assert!(outputs.contains("key=") && outputs.ends_with("exit-code=0\nresults=rwkv-forge-results\n"), "{outputs}");
    assert!(read(summary).contains("| recurrent and parallel form agree | passed |"));
}

/// Action, script and documentation know the same inputs, run the same script, and pin what they use.
#[test]
fn action_script_and_documentation_belong_together() {
    let action = read(root().join("action.yml"));
    let docs = read(root().join("docs/ci.md"));
    let code = read(root().join("tools/check-checkpoint.sh"));
    let steps = action_steps(&action);
    for step in &steps {
        let call = step.command.strip_prefix(r#"sh "$GITHUB_ACTION_PATH/tools/check-checkpoint.sh" "#);
        assert!(matches!(call, Some("key" | "install" | "check")), "{}", step.command);
    }
    let check = steps.iter().find(|step| step.id == "check").unwrap();
    let variables: BTreeMap<_, _> = check.environment.iter().cloned().collect();
    for input in action_inputs(&action).keys() {
        let variable = format!("CHECK_{}", input.to_uppercase().replace('-', "_"));
        assert_eq!(variables.get(&variable), Some(&format!("${{{{ inputs.{input} }}}}")), "{input}");
    }
    let words = code.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    for variable in words.filter(|word| word.len() > 6 && word.starts_with("CHECK_")) {
        assert!(docs.contains(&format!("| `{variable}` |")), "docs/ci.md lacks {variable}");
    }
    for line in action.lines().chain(docs.lines()).filter_map(|line| line.split_once("uses: ").map(|(_, used)| used)) {
        let (name, version) = line.split_once('@').unwrap();
        let pin = version.split(' ').next().unwrap();
        let pinned = pin.len() == 40 && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(pinned || (name == "rwkv-forge/rwkv-forge" && pin == "COMMIT"), "{line} is not pinned by its commit");
    }
}
