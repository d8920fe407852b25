# Writes ruby-regexp.json: what Ruby itself makes of patterns, texts and templates. Run: ruby -W0 ruby_regexp.rb
#
# Each case: s source, o options (letters out of imx), v template, t text; anywhere = t.gsub(pattern, v), whole = the
# same with the pattern between \A(?: and )\z; null when there is no match, error when Ruby refuses the pattern.
require "json"

def outcome(source, options, text, template)
  flags = options.include?("i") ? Regexp::IGNORECASE : 0
  flags |= Regexp::EXTENDED if options.include?("x")
  flags |= Regexp::MULTILINE if options.include?("m")
  regexp = Regexp.new(source, flags)
  regexp.match?(text) ? text.gsub(regexp, template) : nil
rescue RegexpError, IndexError
  { "error" => true }
end

PLAIN = '<\0|\1|\2>'
CASES = []
def row(source, *texts, o: "", v: PLAIN)
  texts.each do |text|
    CASES << { "s" => source, "o" => o, "v" => v, "t" => text,
               "anywhere" => outcome(source, o, text, v),
               "whole" => outcome("\\A(?:#{source}#{"\n" if o.include?("x")})\\z", o, text, v) }
  end
end

# anchors and lines
row '^chef-client( -o .+)?$', "chef-client", "rm -rf /\nchef-client", "chef-client -o a", "xchef-client"
row 'chef-client', "chef-client", "a chef-client b", "chef_client"
row '\Achef\z', "chef", "chef\n"
row '\Achef\Z', "chef", "chef\n", "chef\n\n"
row 'chef$', "chef\n", "chef\nx", "xchef"
row '^', "", "a\n", "a\nb", "\n"
row '$', "", "a\n", "a\nb"
row 'a\n^', "a\n", "a\nb"
row '^a|b$', "a", "b", "ab", "xb", "ax"
row '(^a$)', "a", "a\nb", "b\na"
row '\bab\b', "ab", "cab", "ab é", "éab", "a.ab"
row '\Bb', "ab", "b", "éb"
# dot, m, x
row 'a.b', "a\nb", "a\rb", "axb", "aéb", "a😀b"
row 'a.b', "a\nb", o: "m"
row '(?m:a.b)', "a\nb"
row '(?m)a.b', "a\nb"
row '(?-m:a.b)', "a\nb", o: "m"
row '(?mi-x:A.b)', "a\nb"
row "a b # c\n", "ab", "a b", o: "x"
row "a [ ] b \\ c\\#", "a b c#", "a b c", o: "x"
row "a + (?# note \\) ) b", "aab", "ab", o: "x"
row '(?x: a b )c d', "abc d", "abcd"
# classes
row '\w+', "aZ_9", "é", "٣", "ſ", "a b"
row '\W', "é", "a", "-"
row '\d+', "42", "٣"
row '\D', "٣", "4"
row '\s', " ", "\u00a0", "\v", "\f", "\u2028", "\u0085"
row '\S', "\u00a0", " "
row '\h{4}', "beef", "hhhh", "BEEF"
row '\H+', "xyz", "abc"
row '[\w.-]+', "a-b.c", "a b", "é"
row '[\w-.]+', "a-b.c", "+"
row '[a-c-e]+', "a-e", "d"
row '[^\w]', "é", "a", "\n"
row '[^a]', "\n", "a", "b"
row '[-a]+', "a-", "b"
row '[a-]+', "a-", "b"
row '[+--]+', "+,-", "."
row '[a\]b]+', "a]b", "c"
row '[\[a]+', "[a", "c"
row '[\n\t]', "\n", "n"
row '[\b]', "\b", "b"
row '[a-z&&[^aeiou]]+', "xyz", "aei", "bad"
row '[^a-z&&[aeiou]]', "a", "b", "-"
row '[a-z&&b-y&&[^m]]+', "cdn", "m", "a"
row '[a[bc]d]+', "abcd", "e"
row '[^a[bc]]+', "xyz", "abc"
row '[&a]+', "a&", "b"
row '[\x41-\x43]+', "ABC", "D"
row '[\u{61 62}-c]+', "abc", "d"
row '[[:alpha:]]+', "aé", "9", "ß"
row '[[:digit:]]+', "9", "٣", "a"
row '[[:alnum:]_-]+', "aé9_-", " "
row '[[:upper:]]+', "É", "é", "A"
row '[[:lower:]]+', "é", "É"
row '[[:space:]]+', "\u00a0", " ", "a", "\u0085"
row '[[:blank:]]+', "\t", " ", "\n", "\u00a0"
row '[[:punct:]]+', "$+<=>^`|~", "!.,", "a", "«"
row '[[:cntrl:]]+', "\u0001", "\u009f", "a", "\u200b"
row '[[:graph:]]+', "a!é", " ", "\u00a0", "\u200b"
row '[[:print:]]+', "a !é", "\t", "\u00a0", "\u2028", "\u0085"
row '[[:xdigit:]]+', "fF0", "g"
row '[[:word:]]+', "é_9", "-", "\u0301"
row '[[:^alpha:]]+', "9-", "a"
row '[[:ascii:]]+', "a~", "é"
row '[^[:space:]]+', "ab", " "
row '\p{L}+', "ñandú", "9"
row '\p{Alpha}\P{Alpha}', "é9", "éa"
row '\p{^Alpha}', "9", "a"
row '\p{Greek}+', "λ", "a"
row '\p{Lu}\p{Ll}', "Éa", "éa"
row '\p{Punct}', "$", "!", "«"
row '\p{Word}+', "é_9", "-"
row '[\p{Digit}x]+', "٣x", "y"
row '\R', "\n", "\r\n", "\r", "\u2028", "a"
# case
row 'CHEF', "chef", "Chef", "ſ", o: "i"
row '(?i)CHEF', "chef"
row '(?i:C)hef', "chef", "CHEF", "Chef"
row 'a(?i)b|c', "aB", "aC", "C", "ac", "AB"
row '(a(?i)b|c)d', "acd", "aCd", "aCD", "aBd"
row '(?-i:a)b', "aB", "AB", o: "i"
row 'é', "É", "é", o: "i"
row 's', "ſ", "S", o: "i"
row 'k', "\u212a", "K", o: "i"
row '[a-z]+', "AZ", "\u212a", o: "i"
row '\w', "\u212a", "ſ", "K", o: "i"
row '[\w]', "\u212a", "ſ", "K", o: "i"
row '[\wé]+', "É", "aÉ", "\u212a", o: "i"
row '[^\w]', "\u212a", "K", "-", o: "i"
row '[^\wk]', "\u212a", "K", "-", o: "i"
row '[\wk]', "\u212a", "K", o: "i"
row '\W', "\u212a", "ſ", "s", o: "i"
row '[\W]', "s", "ſ", "-", o: "i"
row '[^s]', "ſ", "S", "t", o: "i"
row '[[:upper:]]+', "a", "é", o: "i"
row '[[:lower:]]+', "A", "É", o: "i"
row '\p{Lu}', "a", "A", o: "i"
row '[\p{Lu}]', "a", "A", o: "i"
row '[A-Z&&[^B]]+', "ac", "b", o: "i"
# quantifiers
row 'a*', "aaa", "b", ""
row 'a+?b', "aab"
row 'a++b', "aab", "ab", "b"
row 'a++ab', "aaab"
row 'a?+a', "a", "aa"
row 'a*+a', "aa"
row 'a{2}', "aa", "aaa", "a"
row 'a{2}?', "aa", "", "a", "aaa"
row 'a{,2}', "aa", "", "aaa"
row 'a{1,2}+', "aaaaa"
row 'a{1,2}?', "aa"
row 'a{2,}?', "aaaa"
row 'a{2,}', "aaaa", "a"
row 'a{,}', "a{,}", "aa"
row 'a{x', "a{x", "a"
row 'a{1', "a{1", "a"
row 'a**', "aa", "b"
row '(?:a+)*b', "aab", "b"
row '(a|b)*', "abab", ""
row '(a*)*', "aa", "b"
row '(a|b*)*c', "abc", "c"
row '(?:(a)|b)*', "ab", "ba"
row 'a|ab', "ab", "a"
row '(a|ab)(c|bcd)', "abcd", "abc"
row '(|a)b', "b", "ab"
row 'x*', "axb"
row '', "abc", ""
# groups and references
row '(\w)\1', "aa", "ab"
row '(a)(?:b)(c)', "abc"
row '(a)|(b)\2', "a", "bb"
row '(?:(a)|b)\1', "aa", "b"
row '(a)\1', "aA", o: "i"
row '(a)\1\x30', "aa0"
row '(?<n>\w+) \k<n>', "ab ab", "ab cd", v: '[\k<n>]'
row "(?'q'a)b", "ab", v: '[\k<q>]'
row '^(svc) (?<what>\w+)$', "svc nginx", v: '[\1][\k<what>][\0]'
row '(a)(?<x>b)(?:c)', "abc", v: '\k<x>\2\1'
row '(?>a+)ab', "aaab"
row '(?>a|ab)c', "abc", "ac"
# looking around
row '^(?!.*;)run (.+)$', "run a", "run a;b"
row 'a(?=b)', "ab", "ac"
row '(?<=a)b', "ab", "cb"
row '(?<!a)b', "ab", "cb", "b"
row '(?=a)(?!ab)a', "ab", "ac"
row '(?<=^|;)b', "b", ";b", "ab"
# escapes
row '\t\n\r\f\v\a\e', "\t\n\r\f\v\a\e"
row '\x41\101\u0041\u{41}', "AAAA"
row '\u{61 62}', "ab"
row '\0', "\0x", "0"
row '\012', "\n"
row '\cA\C-b', "\u0001\u0002"
row '\/\.\-\#\"\@', '/.-#"@', "/x-#\"@"
row '/usr/bin/(.+)', "/usr/bin/x"
row 'a]b}', "a]b}"
row '\é', "é"
row 'größe \S+', "größe ñandú"
# templates
row 'b', "abc", v: '[\`]'
row 'b', "abc", v: "[\\']"
row 'b', "abc", v: '\&\&\\\\\\0\q\n\\'
row '(b)', "abc", v: '\9\1x'
row '(b)', "abc", v: '$1 ${1} #{1}'
row '(b)', "abc", v: '\k'
row 'ab', "ababab", "ab;ab", v: "X"
row '.*', "anything", "a\nb", v: "safe"
row 'é*', "aéb", v: "-"
# what Ruby takes and we refuse: the test says with which words
row '(?~b)', "a"
row '(a)(?(1)b|c)', "ab"
row '\A(?<p>\((?:\g<p>)*\))\z', "(())", v: "x"
row 'a\Kb', "ab"
row '\X', "a"
row '(?a)b', "b"
row '(?<n>a)|(?<n>b)', "b", v: "x"
row '\xC3\xA9', "é"
row 'ß', "ss", o: "i"
row '[]a]', "a"
# options in brackets
row '[[:digit:]k]+', "\u212a", "K9", o: "i"
row '[\dk]', "\u212a", o: "i"
row '[\p{Nd}k]', "\u212a", "٣", o: "i"
row '[[:alpha:]]+', "éÉkK\u212a", "9", o: "i"
row '[\p{Greek}]', "λ", "Λ", "µ", o: "i"
row '\p{Greek}', "λ", "Λ", "µ", o: "i"
row '[^\s]', "É", " ", o: "i"
row '(x?){2}y', "xy", "y", "xxy"
row '((?:a|b)+)?c', "abc", "c"
row '(a(b)?)+', "aba", "ab"
row '(?:(a)|(b))+', "ab", "ba"
row '((a)|b)+', "ab"
# what Ruby refuses
['(', 'a)', '[', '[b-a]', 'a{3,1}', '(a)\2', '(?<a>x)\1', '\x{41}', '*a', '+', '(?z)', '(?<', '(?<>a)', '[[:nope:]',
 'a\\', '\p{Nope}', '\u{110000}', '\k<n>', '\xg', '\u12', '(?<1a>x)', '(?<n>a', '[a&&', '(?:a', '\p{'].each { |s| row s, "x" }
[["b", '\k<n>'], ['(?<n>b)', '\k<m>'], ['(?<n>b)', '\k<n']].each do |s, v|
  CASES << { "s" => s, "o" => "", "v" => v, "t" => "b", "anywhere" => { "error" => true }, "whole" => { "error" => true } }
end

File.write(File.join(__dir__, "ruby-regexp.json"),
           "{\"format\":\"pushy-ruby-regexp/1\",\"ruby\":#{RUBY_VERSION.to_json},\"cases\":[\n" +
           CASES.map { |c| JSON.generate(c) }.join(",\n") + "\n]}\n")
puts "#{CASES.length} cases"
