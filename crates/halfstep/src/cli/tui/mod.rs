//! `train --tui`: the run on the whole terminal.

mod board;
mod draw;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use halfstep::train::recipe::Experiment;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::failure::{Failure, INTERRUPTED};
use super::{interrupt, machine, stdio};
use board::Figures;

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(200);

/// An error unless there is a terminal to draw on.
pub fn check() -> Result<(), Failure> {
    if stdio::stdout_is_terminal() && std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::asked(
        "--tui needs a terminal, and there is none here",
        "leave --tui out: progress is shown in lines",
    ))
}

/// A dashboard that has the terminal until it is dropped.
pub struct Tui {
    figures: Arc<Mutex<Figures>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tui {
    /// Takes the terminal. A panic gives it back before it is shown.
    ///
    /// # Errors
    /// The terminal does not let itself be drawn on.
    pub fn begin(title: String, experiment: &Experiment, step: u64) -> Result<Tui, Failure> {
        let recipe = &experiment.recipe;
        let figures = Figures::new(title, experiment.steps, step, recipe.train.batch);
        let figures = Arc::new(Mutex::new(figures));
        let failed = |e: std::io::Error| Failure::failed(format!("the terminal cannot be drawn on: {e}"));
        let mut terminal = ratatui::try_init().map_err(failed)?;
        interrupt::quiet(true);
        let over = Arc::new(AtomicBool::new(false));
        let (shown, ended) = (figures.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                {
                    let mut figures = lock(&shown);
                    figures.memory = machine::rss_bytes();
                    figures.stopping = interrupt::asked();
                    // A terminal that is gone is no reason to stop training.
                    let _ = terminal.draw(|frame| draw::draw(&figures, frame));
                }
                if event::poll(FRAME).unwrap_or_else(|_| {
                    std::thread::sleep(FRAME);
                    false
                }) {
                    keys();
                }
            }
        });
        Ok(Tui { figures, over, thread: Some(thread) })
    }

    /// What is to be shown.
    pub fn figures(&self) -> MutexGuard<'_, Figures> {
        lock(&self.figures)
    }
}

fn lock(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `q` and Ctrl-C stop as the signal does; a second Ctrl-C at once.
fn keys() {
    let Ok(Event::Key(key)) = event::read() else { return };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let stops = control_c || key.code == KeyCode::Char('q');
    if key.kind != KeyEventKind::Press || !stops {
        return;
    }
    let again = interrupt::ask();
    if control_c && again {
        let _ = ratatui::try_restore();
        std::process::exit(i32::from(INTERRUPTED));
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = ratatui::try_restore();
        interrupt::quiet(false);
    }
}
