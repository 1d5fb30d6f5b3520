package replicate

import "testing"

func TestNearest(t *testing.T) {
	keys := []string{"storage", "metrics", "ignore", "env", "python", "cuda", "python_requirements", "install", "install_script", "image", "hosts"}
	for _, tt := range []struct{ name, want string }{
		{"metric", "metrics"}, {"Metrics", "metrics"}, {"STORAGE", "storage"}, {"stroage", "storage"}, {"imgae", "image"},
		{"pyhton", "python"}, {"requirements", ""}, {"python_requirement", "python_requirements"}, {"installscript", "install_script"},
		{"repository", ""}, {"x", ""}, {"", ""}, {"evn", "env"}, {"envs", "env"}, {"host", "hosts"}, {"gpu", ""},
	} {
		if got := Nearest(tt.name, keys); got != tt.want {
			t.Errorf("Nearest(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := Nearest("los", []string{"lr", "loss", "los2"}); got != "loss" {
		t.Errorf("of two equally near ones got %q", got)
	}
	if got := Nearest("größe", []string{"grosse", "grösse"}); got != "" && got != "grösse" {
		t.Errorf("got %q", got)
	}
	if got := DidYouMean("los", []string{"loss"}); got != `did you mean "loss"?` {
		t.Errorf("DidYouMean = %q", got)
	}
	if got := DidYouMean("x", nil); got != "" {
		t.Errorf("DidYouMean = %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3},
		{"größe", "grösse", 2}, {"aaaa", "bbbb", 4},
	} {
		if got := distance(tt.a, tt.b, 100); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := distance(tt.b, tt.a, 100); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}
