package redact

// number judges the digits that begin at b[i], which no letter or digit precedes.
func (s *scratch) number(v *view, i int) int {
	b := v.b
	if i >= 2 && (b[i-1] == '-' || b[i-1] == '.') && digit(b[i-2]) {
		return 0 // within a longer number, an address or a UUID
	}
	var groups [8]int // digits per group, the groups parted by one and the same separator
	var digits [20]byte
	n, total, end := 0, 0, i
	sep := byte(0)
	for j := i; j < len(b); {
		k := j
		for k < len(b) && digit(b[k]) {
			if total < len(digits) {
				digits[total] = b[k] - '0'
			}
			total++
			k++
		}
		if k == j || total >= len(digits) || n == len(groups) {
			return 0
		}
		groups[n] = k - j
		n++
		end = k
		if k < len(b) && alnum(b[k]) {
			return 0 // an id in hexadecimal, a unit
		}
		if card(b, end, digits[:total], groups[:n]) {
			return s.found(v, i, end, cards)
		}
		if ssn(digits[:total], groups[:n]) && !more(b, end) {
			return s.found(v, i, end, ssns)
		}
		if k+1 >= len(b) || (b[k] != ' ' && b[k] != '-' && b[k] != '+') || sep != 0 && b[k] != sep {
			return 0
		}
		sep = b[k]
		j = k + 1
	}
	return 0
}

// more says that a number goes on behind b[end:].
func more(b []byte, end int) bool {
	return end+1 < len(b) && (b[end] == '-' || b[end] == '.') && digit(b[end+1])
}

// card says that these digits are a payment card's number: a known
// issuer's prefix and length, the check digit right, and, where they stand in
// groups, groups as cards print them.
func card(b []byte, end int, d []byte, groups []int) bool {
	if len(d) < 13 || more(b, end) || !issuer(d) || !luhn(d) {
		return false
	}
	if len(groups) == 1 {
		return true
	}
	switch {
	case len(groups) == 3: // American Express, Diners
		return groups[0] == 4 && groups[1] == 6
	case len(groups) >= 4:
		for _, g := range groups[:len(groups)-1] {
			if g != 4 {
				return false
			}
		}
		return groups[len(groups)-1] <= 4
	}
	return false
}

// issuer says whether a card's number may begin and be as long as this.
func issuer(d []byte) bool {
	p := func(n int) int {
		v := 0
		for _, c := range d[:n] {
			v = v*10 + int(c)
		}
		return v
	}
	n := len(d)
	switch p2, p4 := p(2), p(4); {
	case d[0] == 4: // Visa
		return n == 13 || n == 16 || n == 19
	case p2 >= 51 && p2 <= 55, p4 >= 2221 && p4 <= 2720: // Mastercard
		return n == 16
	case p2 == 34 || p2 == 37: // American Express
		return n == 15
	case p4 == 6011, p2 == 65, p(3) >= 644 && p(3) <= 649: // Discover
		return n == 16 || n == 19
	case p4 >= 3528 && p4 <= 3589: // JCB
		return n == 16 || n == 19
	case p2 == 36, p2 == 38, p(3) >= 300 && p(3) <= 305: // Diners
		return n == 14
	case p2 == 62: // UnionPay
		return n >= 16
	}
	return false
}

func luhn(d []byte) bool {
	sum := 0
	for i, c := range d {
		v := int(c)
		if (len(d)-i)%2 == 0 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// ssn says that these digits are a social security number as people write it.
func ssn(d []byte, groups []int) bool {
	if len(groups) != 3 || groups[0] != 3 || groups[1] != 2 || groups[2] != 4 {
		return false
	}
	area := int(d[0])*100 + int(d[1])*10 + int(d[2])
	return area != 0 && area != 666 && area < 900 && (d[3] != 0 || d[4] != 0) &&
		(d[5] != 0 || d[6] != 0 || d[7] != 0 || d[8] != 0)
}
