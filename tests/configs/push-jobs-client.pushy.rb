# What Pushy's own agent adds to the file.
org = 'acme'
chef_server_url "https://chef.example.com/organizations/#{org}"
node_name ENV['NODE_NAME']
client_key File.join(__dir__, 'client.pem')
max_body_size 1_000_000
file_dir '/var/lib/pushy' + '/files'
allowed_overwritable_env_vars %w(PATH LANG)
whitelist_match :anywhere
log_location STDOUT
log_level :info
whitelist(
  'chef-client' => 'chef-client',
  %r{\A/opt/bin/(\w+)\z} => { command_line: ['/opt/bin/\1', '--once'], user: 'deploy', env: { 'LANG' => 'C' } },
  /
    \A run \s (?<what> .+ ) \z   # anything, quoted
  /x => { command_line: 'run \k<what>', quote: true },
  'reboot' => nil,
)
