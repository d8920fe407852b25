chef_server_url  "https://chef.example.com/organizations/acme"
validation_client_name "acme-validator"
log_location   STDERR
node_name "web-1"
trusted_certs_dir "/etc/chef/trusted_certs"
file_cache_path "/var/chef/cache"
