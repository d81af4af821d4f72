//! Hands the arguments to `cli` and returns its exit code.

fn main() -> std::process::ExitCode {
    vmrescue::cli::main()
}
