# Push Jobs client, settings of a node that sets no attributes.
LC_ALL='en_US.UTF-8'

chef_server_url   'https://chef.example.com/organizations/acme'
node_name         'web-1.example.com'
client_key        '/etc/chef/client.pem'
trusted_certs_dir '/etc/chef/trusted_certs'
verify_api_cert   true
ssl_verify_mode   :verify_peer

allow_unencrypted false

whitelist({"chef-client"=>"chef-client"})

Mixlib::Log::Formatter.show_time = false
