log_level                :info
log_location             STDOUT
node_name                'admin'
client_key               '/home/admin/.chef/admin.pem'
validation_client_name   'chef-validator'
validation_key           '/etc/chef-server/chef-validator.pem'
chef_server_url          'https://chef.example.com/organizations/acme'
syntax_check_cache_path  '/home/admin/.chef/syntax_check_cache'
cookbook_path [ '/home/admin/chef-repo/cookbooks', File.expand_path('~/more') ]
knife[:editor] = 'vi'
knife[:ssh_user] = ENV.fetch('SSH_USER', 'root')
