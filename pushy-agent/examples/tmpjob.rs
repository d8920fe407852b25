use pushy_core::{auth::SigningKey, client::*, ids::*, job::*};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let key = SigningKey::from_pem(std::fs::read("/tmp/nd/srv/admin/.chef/admin.pem").unwrap()).unwrap();
        let c = Client::new(
            Settings::new("http://127.0.0.1:21003/organizations/acme", "admin").with_key(key, "k"),
        )
        .unwrap();
        println!("{:?}", c.node_states().await);
        if a.len() < 2 {
            return;
        }
        let file = a.get(2).cloned();
        let user = a.get(3).cloned();
        let s = c
            .start_job(&JobRequest {
                command: a[1].clone(),
                nodes: vec![NodeName::new("web1").unwrap()],
                run_timeout: None,
                quorum: None,
                options: JobOptions {
                    capture: true,
                    file,
                    user,
                    env: Some(vec![("STAGE".into(), "prod".into()), ("PATH".into(), "/x".into())]),
                    ..Default::default()
                },
            })
            .await
            .unwrap();
        println!("{s:?}");
        for _ in 0..100 {
            let v = c.job(&s.id).await.unwrap();
            if v.status().is_terminal() {
                println!("{}", v.document());
                for ch in [pushy_core::api::Channel::Stdout, pushy_core::api::Channel::Stderr] {
                    println!("--- {:?}", c.output(&s.id, &NodeName::new("web1").unwrap(), ch).await);
                }
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        println!("still {}", c.job(&s.id).await.unwrap().document());
    });
}
