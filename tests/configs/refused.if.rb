node_name 'web-1'
log_level :info
  if File.exist?('/etc/chef/other.pem')
  client_key '/etc/chef/other.pem'
end
