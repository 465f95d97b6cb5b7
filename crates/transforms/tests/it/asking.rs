//! What stages that ask servers need in a trial: a client, and a service that outlives every trial.

use aqueduct_core::RunContext;

/// Puts a client into the context.
pub(crate) fn services(run: &mut RunContext) {
    #[cfg(feature = "http")]
    {
        use aqueduct_net::{Fetcher, HttpOptions, StorageOptions};

        let fetcher = Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
        run.services.insert(std::sync::Arc::new(fetcher.unwrap()));
    }
    #[cfg(not(feature = "http"))]
    let _ = run;
}

/// Where a stand-in for an AI service is, on a thread of its own: trials have runtimes of theirs.
#[cfg(feature = "http")]
pub(crate) fn service_url() -> String {
    use std::sync::OnceLock;
    use std::sync::mpsc::sync_channel;

    use aqueduct_testkit::ai_service::{AiService, Behaviour};

    static URL: OnceLock<String> = OnceLock::new();
    let start = || {
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let service = AiService::start(Behaviour::default()).await;
                tell.send(service.url()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        told.recv().unwrap()
    };
    URL.get_or_init(start).clone()
}
