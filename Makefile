# The README's two commands, and what contributors repeat. Everything lands in .venv of this checkout.

VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: quickstart test lint clean

quickstart: $(VENV)/.installed  ## set up, then train the small model on invented data
	$(VENV)/bin/codegym run benchmarks/quickstart.toml

test: $(VENV)/.installed-for-tests  ## set up, the database servers included, then check style, types and behaviour
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-for-tests  ## mend what ruff can mend, and say the rest
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) runs

$(VENV)/bin/python:
	@echo "Setting up $(VENV)"
	@python3 -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); $(call apt,python3-venv); python3 -m venv $(VENV); }

$(VENV)/.installed: $(INPUTS) | $(VENV)/bin/python
	@echo "Installing codegym and what it needs (a few minutes: PyTorch is large)"
	@$(PIP) --editable .
	@touch $@

# mysqlclient is compiled against MariaDB's client library.
$(VENV)/.installed-for-tests: $(INPUTS) | $(VENV)/.installed
	@command -v mariadbd >/dev/null || PATH=$$PATH:/usr/sbin command -v mariadbd >/dev/null || { $(call apt,mariadb-server); }
	@test -n "$$(find /usr/lib/postgresql -name postgres -path '*/bin/*' 2>/dev/null)" || command -v postgres >/dev/null \
		|| { $(call apt,postgresql); }
	@command -v mariadb_config >/dev/null && command -v gcc >/dev/null && command -v pkg-config >/dev/null \
		|| { $(call apt,libmariadb-dev pkg-config gcc python3-dev); }
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[mariadb,postgres,duckdb,endpoint,quantization,dev]'
	@touch $@

# Install Debian packages where that is allowed, else say what to type.
define apt
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $(1) with apt-get" && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
	else \
		echo "This needs the packages $(1). As root, type: apt-get install $(1)"; exit 1; \
	fi
endef
