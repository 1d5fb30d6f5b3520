package replicate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

const module = "github.com/replicate/replicate"

// mayImport says which of our packages each of our packages may import, tests aside. Imports run one way: down this list.
var mayImport = map[string][]string{
	"":                            {},
	"storage":                     {""},
	"storage/disk":                {"", "storage"},
	"storage/mem":                 {"", "storage"},
	"storage/storagetest/require": {},
	"storage/storagetest/servers": {},
	"storage/storagetest/badnet":  {},
	"storage/storagetest": {"", "storage", "storage/storagetest/require", "storage/storagetest/servers",
		"storage/storagetest/badnet"},
	"storage/wire":              {"", "storage"},
	"storage/pipe":              {"", "storage"},
	"storage/s3":                {"", "storage", "storage/wire"},
	"storage/gcs":               {"", "storage", "storage/wire"},
	"storage/project":           {"", "storage"},
	"storage/repository":        {"", "storage"},
	"storage/legacy":            {"", "storage", "storage/disk", "storage/repository"},
	"storage/legacy/legacytest": {},
	"storage/recorder":          {"", "storage", "storage/disk", "storage/project", "storage/repository"},
	"index":                     {"", "storage", "storage/repository"},
	"fs/view":                   {"", "storage", "storage/repository", "index"},
	"fs":                        {"", "storage", "storage/repository", "index", "fs/view"},
	"python":                    {},
	"remote/ssh":                {""},
	"remote/docker":             {""},
	"remote/job":                {"", "storage", "storage/disk", "storage/project", "storage/repository", "storage/recorder"},
	"remote/code":               {"", "storage", "storage/repository"},
	"remote/image":              {"", "remote/docker", "remote/job"},
	"remote/remotetest":         {"", "storage/storagetest/require"},
	"remote": {"", "storage", "storage/pipe", "storage/disk", "storage/project", "storage/repository", "storage/recorder", "remote/ssh",
		"remote/docker", "remote/job", "remote/code", "remote/image"},
	"cmd/replicate": {"", "storage", "storage/disk", "storage/mem", "storage/pipe", "storage/s3", "storage/gcs", "storage/project",
		"storage/repository", "storage/legacy", "storage/recorder", "index", "fs/view", "fs", "python", "remote", "remote/ssh", "remote/docker",
		"remote/job", "remote/code", "remote/image"},
	"cmd/e2e": {},
	"cmd/bench": {"", "storage", "storage/disk", "storage/mem", "storage/s3", "storage/gcs", "storage/storagetest/servers",
		"storage/storagetest/badnet", "storage/project", "storage/repository", "index", "fs/view", "fs", "remote/remotetest"},
}

// homes says which one of our packages imports each module of others, tests included. Those of golang.org/x count as
// the standard library.
var homes = map[string]string{
	"gopkg.in/yaml.v3":                  "",
	"github.com/zeebo/blake3":           "storage/repository",
	"github.com/klauspost/compress":     "storage/repository",
	"github.com/git-pkgs/gitignore":     "storage/repository",
	"modernc.org/sqlite":                "index",
	"github.com/hanwen/go-fuse/v2":      "fs",
	"github.com/urfave/cli/v2":          "cmd/replicate",
	"github.com/rogpeppe/go-internal":   "cmd/replicate",
	"github.com/aws":                    "storage/s3",
	"cloud.google.com/go":               "storage/gcs",
	"google.golang.org/api":             "storage/gcs",
	"github.com/johannesboyne/gofakes3": "storage/storagetest/servers",
	"github.com/moby/moby":              "remote/docker",
}

// A pkg is what go list says of one of our packages.
type pkg struct {
	ImportPath                         string
	Name                               string
	Dir                                string
	GoFiles, IgnoredGoFiles            []string
	Imports, TestImports, XTestImports []string
}

// name is the import path within the module, "" for the package at its root.
func (p pkg) name() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command(require.Program(t, "go"), "list", "-json", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		may, ok := mayImport[p.name()]
		if !ok {
			t.Errorf("package %s has no line in mayImport: say what it may import", p.name())
		}
		for _, path := range p.Imports {
			if path == module || strings.HasPrefix(path, module+"/") {
				if name := (pkg{ImportPath: path}).name(); !slices.Contains(may, name) {
					t.Errorf("package %q must not import %q", p.name(), name)
				}
			}
		}
	}
}

func TestModulesHaveOneHome(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			host, _, _ := strings.Cut(path, "/")
			if !strings.Contains(host, ".") || host == "golang.org" || strings.HasPrefix(path, module) {
				continue
			}
			if p.name() == "cmd/e2e" && strings.HasPrefix(path, "github.com/hanwen/go-fuse/v2/") {
				continue // its tests cut the power of a disk of their own
			}
			if home, ok := homeOf(path); !ok {
				t.Errorf("package %q imports %s, which has no home", p.name(), path)
			} else if home != p.name() {
				t.Errorf("package %q imports %s, which only %q may", p.name(), path, home)
			}
		}
	}
}

// homeOf returns the home of the module that a package is in.
func homeOf(path string) (string, bool) {
	for module, home := range homes {
		if path == module || strings.HasPrefix(path, module+"/") {
			return home, true
		}
	}
	return "", false
}

// TestOnlyCommandsReadTheEnvironment keeps variables and flags out of all other packages, but for the one that tests share.
func TestOnlyCommandsReadTheEnvironment(t *testing.T) {
	forbidden := map[string][]string{
		"os": {"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Args", "UserHomeDir", "UserCacheDir", "UserConfigDir"}, "flag": nil,
	}
	for _, p := range packages(t) {
		if p.Name == "main" || p.name() == "storage/storagetest/require" {
			continue
		}
		for name, file := range p.parse(t) {
			ast.Inspect(file, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					x, _ := s.X.(*ast.Ident)
					if x != nil && x.Obj == nil && slices.Contains(forbidden[x.Name], s.Sel.Name) {
						t.Errorf("%s reads %s.%s", name, x.Name, s.Sel.Name)
					}
				}
				return true
			})
			for _, i := range file.Imports {
				if i.Path.Value == `"flag"` {
					t.Errorf("%s imports flag", name)
				}
			}
		}
	}
}

// parse returns the files of a package, tests left out, those of other systems included, by path.
func (p pkg) parse(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Join(p.name(), name)] = file
	}
	return files
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		found := 0
		for name, file := range p.parse(t) {
			if file.Doc == nil {
				continue
			}
			found++
			if !strings.HasPrefix(file.Doc.Text(), want) {
				t.Errorf("%s: the package comment does not begin with %q", name, want)
			}
		}
		if found != 1 {
			t.Errorf("package %q has %d package comments", p.name(), found)
		}
	}
}

// TestExportedNamesAreDocumented wants a comment on 90 % of the exported names of each package. Names of a group with
// a comment of its own count as documented. Fields, methods of interfaces, and methods whose contract is known to all are not counted.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
		bare := map[string]bool{}
		names := 0
		for _, file := range p.parse(t) {
			for name, documented := range exported(file) {
				names++
				if !documented {
					bare[name] = true
				}
			}
		}
		if 10*len(bare) > names {
			t.Errorf("package %q: of %d exported names these have no comment: %s", p.name(), names,
				strings.Join(slices.Sorted(maps.Keys(bare)), ", "))
		}
	}
}

// exported returns the exported names of a file, and whether each has a comment.
func exported(file *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			known := d.Recv != nil && slices.Contains([]string{"String", "Error", "Unwrap", "Close", "Len", "Less", "Swap"}, d.Name.Name)
			if receiver, ok := receiver(d); ok && d.Name.IsExported() && !known {
				names[receiver+d.Name.Name] = d.Doc != nil
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						names[s.Name.Name] = d.Doc != nil || s.Doc != nil || s.Comment != nil
					}
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if name.IsExported() {
							names[name.Name] = d.Doc != nil || s.Doc != nil || s.Comment != nil
						}
					}
				}
			}
		}
	}
	return names
}

// receiver returns "T." for a method of an exported type T, "" for a function, and false for a method nobody can see.
func receiver(d *ast.FuncDecl) (string, bool) {
	if d.Recv == nil {
		return "", true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	name, ok := typ.(*ast.Ident)
	if !ok || !name.IsExported() {
		return "", false
	}
	return name.Name + ".", true
}
