//! One RSA pair for every host, published on purpose: making pairs, and signing with longer ones, would cost more than
//! all the rest of a seed.

use std::sync::OnceLock;

use pushy_core::auth::SigningKey;

struct Pair {
    client: SigningKey,
    client_public: String,
}

fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let client = SigningKey::from_pem(server_pem()).expect("a good key");
        let client_public = client.public_pem().expect("a good key");
        Pair { client, client_public }
    })
}

/// The server's private key, PEM.
pub fn server_pem() -> &'static str {
    include_str!("test-key.pem")
}

/// The key of every node.
pub fn client() -> SigningKey {
    pair().client.clone()
}

/// Its public half, PEM.
pub fn client_public() -> &'static str {
    &pair().client_public
}
