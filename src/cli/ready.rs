//! How whoever started the server learns that it is ready, and how the server learns that nobody is there any more.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::sync::oneshot;

/// The file with the ready line. It is removed when this is dropped.
pub(super) struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Writes `line` under another name, and gives it its name then: whoever waits for the file finds it whole.
    pub(super) fn write(path: &Path, line: &str) -> anyhow::Result<Self> {
        let unwritable = || format!("the ready file {} cannot be written", path.display());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).with_context(unwritable)?;
        writeln!(file, "{line}").with_context(unwritable)?;
        file.persist(path).with_context(unwritable)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Whoever waited for it may have removed it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Waits until standard input has come to its end. A thread of its own waits with it, which nobody has to stop: it goes
/// with the process.
pub(super) fn end_of_input() -> anyhow::Result<impl Future<Output = ()>> {
    let (told, ended) = oneshot::channel::<()>();
    let read = move || {
        let mut ignored = [0; 1_024];
        let mut input = io::stdin().lock();
        loop {
            match input.read(&mut ignored) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        // The server may have ended in the same moment.
        let _ = told.send(());
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(read).context("standard input cannot be watched")?;
    Ok(async {
        let _ = ended.await;
    })
}
