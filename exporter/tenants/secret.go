package tenants

// Secret is a string that never shows itself: in logs, errors and JSON it is "set" or empty.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON shows only that a secret is set.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s == "" {
		return []byte(`""`), nil
	}
	return []byte(`{"secret":"set"}`), nil
}

// Reveal gives the value, to the code that must send or compare it.
func (s Secret) Reveal() string { return string(s) }
