//! Two RSA pairs, parsed once: making them anew for every seed would cost more than the seed.

use std::sync::OnceLock;

use pushy_core::auth::SigningKey;

struct Pair {
    server_pem: String,
    client: SigningKey,
    client_public: String,
}

fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/chef-auth.json");
        let text = std::fs::read(path).expect("the vectors are there");
        let vectors: serde_json::Value = serde_json::from_slice(&text).expect("the vectors are JSON");
        let pem = |key: &str, half: &str| vectors["keys"][key][half].as_str().expect("a key").to_owned();
        Pair {
            server_pem: pem("b2048", "private_pem"),
            client: SigningKey::from_pem(pem("a2048", "private_pem")).expect("a good key"),
            client_public: pem("a2048", "public_pem"),
        }
    })
}

/// The server's private key, PEM.
pub fn server_pem() -> &'static str {
    &pair().server_pem
}

/// The key of every node.
pub fn client() -> SigningKey {
    pair().client.clone()
}

/// Its public half, PEM.
pub fn client_public() -> &'static str {
    &pair().client_public
}
