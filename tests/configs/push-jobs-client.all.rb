# Push Jobs client, every attribute set.
LC_ALL='de_DE.UTF-8'
TZ='Europe/Berlin'

chef_server_url   'https://chef.example.com:8443/organizations/acme-test'
node_name         'db 01.example.com'
client_key        '/srv/chef/node.pem'
trusted_certs_dir '/srv/chef/trusted_certs'
verify_api_cert   false
ssl_verify_mode   :verify_none

allow_unencrypted true

http_proxy 'http://proxy.example.com:3128'
http_proxy_user 'nora'
http_proxy_pass 'p#ss \'word\''
https_proxy 'http://proxy.example.com:3128'
https_proxy_user 'nora'
https_proxy_pass 'p:w'
no_proxy 'localhost,10.*,*.example.com'

whitelist({"chef-client"=>"chef-client", "tomcat6_restart"=>"service tomcat6 restart", "say \"hi\""=>"echo 'hi' \#{1}", /^deliver (?<what>\w+)$/=>"deliver \\k<what>", /^chef-client( -o .+)?$/i=>{"command_line"=>"chef-client\\1", "lock"=>true}, "hard"=>{:command_line=>"sleep 10", :lock=>"/run/hard.lock"}})

Mixlib::Log::Formatter.show_time = true
